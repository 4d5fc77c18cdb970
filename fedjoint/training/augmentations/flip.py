"""Mirrored images."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.options import UpToOne
from fedjoint.training.augmentations._one import OneTensor


class Flip(OneTensor):
    """Mirrors each input along its last dimension, left to right, or not.

    Args:
        probability: of being mirrored.
        key: the tensor, where inputs are a dict.
    """

    def __init__(self, probability: UpToOne = 0.5, key: str = "") -> None:
        super().__init__(key)
        self.probability = probability

    def change(self, x: Tensor) -> Tensor:
        if x.ndim < 2:
            raise UserError("flip mirrors images or rows, and each input is one number")
        mirrored = torch.rand(len(x), device=x.device) < self.probability
        return torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
