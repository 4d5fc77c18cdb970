"""Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.options import Positive
from fedjoint.training.augmentations._one import OneTensor


class Noise(OneTensor):
    """Adds normal noise to every number.

    Args:
        deviation: of the noise.
        key: the tensor, where inputs are a dict.
    """

    def __init__(self, deviation: Positive = 0.1, key: str = "") -> None:
        super().__init__(key)
        self.deviation = deviation

    def change(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise UserError("noise is added to numbers, and these inputs are ids")
        return x + self.deviation * torch.randn_like(x)
