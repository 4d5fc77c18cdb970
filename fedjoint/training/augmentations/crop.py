"""Shifted images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from fedjoint.errors import UserError
from fedjoint.options import Count
from fedjoint.training.augmentations._one import OneTensor


class Crop(OneTensor):
    """Cuts each image out of the same with a margin of zeros, at a place of its own.

    Args:
        padding: width of the margin; an image is shifted by so much at most, each way.
        key: the tensor, where inputs are a dict.
    """

    def __init__(self, padding: Count = 4, key: str = "") -> None:
        super().__init__(key)
        self.padding = padding

    def change(self, x: Tensor) -> Tensor:
        if x.ndim < 3:
            raise UserError(f"crop takes images [..., height, width], not {tuple(x.shape[1:])}")
        *_, height, width = x.shape
        if self.padding > max(height, width):
            raise UserError(
                f"crop: padding = {self.padding} is wider than images of {height} x {width}; "
                "give less"
            )
        wide = pad(x, [self.padding] * 4)
        top, left = torch.randint(2 * self.padding + 1, (2, len(x), 1), device=x.device)
        rows = top + torch.arange(height, device=x.device)
        columns = left + torch.arange(width, device=x.device)
        place = torch.arange(len(x), device=x.device).view(-1, 1, 1)
        planes = wide.reshape(len(x), -1, *wide.shape[-2:]).movedim(1, -1)
        found = planes[place, rows.unsqueeze(2), columns.unsqueeze(1)]
        return found.movedim(-1, 1).reshape(x.shape)
