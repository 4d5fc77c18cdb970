"""What the built-in augmentations have in common: each changes one tensor of an input."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from fedjoint.errors import UserError, choose
from fedjoint.model.tree import Input
from fedjoint.training.augment import Augmentation


class OneTensor(Augmentation):
    """Changes one tensor of an input, and leaves the others.

    Args:
        key: its name, where inputs are a dict.
    """

    def __init__(self, key: str = "") -> None:
        self.key = key

    def augment(self, x: Input) -> Input:
        if isinstance(x, Tensor):
            if self.key:
                raise UserError(f"option key = {self.key!r}: inputs are one tensor, leave it out")
            return self.change(x)
        if self.key not in x:
            raise choose("option key", self.key, x)
        return {**x, self.key: self.change(x[self.key])}

    @abstractmethod
    def change(self, x: Tensor) -> Tensor:
        """Return ``x`` ``[n, ...]``, changed."""
