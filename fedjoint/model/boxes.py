"""Boxes in images: what a centre-point head says of them, and how they overlap.

A box is ``(class, left, top, right, bottom)``, in shares of the image's width and height from its
upper left corner; one of class -1 is padding, and one of class -2 a region of which nobody knows
the boxes. An image of which nobody knows any has NaN. The output ``[n, classes + 4, h, w]`` of a
head has for every cell of a grid the logits that a box of each class has its centre there, and of
that box the centre within the cell and the size in cells.

Paper: Zhou et al., "Objects as Points", 2019, https://arxiv.org/abs/1904.07850
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: the class of a region that is ignored
IGNORED = -2


class Found(NamedTuple):
    """The boxes that outputs say, the surest first.

    Attributes:
        classes: ``[n, m]`` int64.
        scores: ``[n, m]`` from 0 to 1.
        corners: ``[n, m, 4]`` left, top, right and bottom.
    """

    classes: Tensor
    scores: Tensor
    corners: Tensor


def decode(output: Tensor, most: int) -> Found:
    """Return the boxes at the cells that are surer than their eight neighbours.

    Args:
        output: ``[n, classes + 4, h, w]``.
        most: boxes of an image.
    """
    heat, rest = output[:, :-4].sigmoid(), output[:, -4:].flatten(2)
    height, width = heat.shape[2:]
    peaks = torch.where(heat == F.max_pool2d(heat, 3, 1, 1), heat, 0).flatten(1)
    scores, at = peaks.topk(min(most, peaks.shape[1]), dim=1)
    cell = at % (height * width)
    x, y, wide, high = (part.gather(1, cell) for part in rest.reshape(len(output), 4, -1).unbind(1))
    x, y = (cell % width + x) / width, (cell // width + y) / height
    wide, high = wide.clamp(min=0) / width / 2, high.clamp(min=0) / height / 2
    corners = torch.stack([x - wide, y - high, x + wide, y + high], -1)
    return Found(at // (height * width), scores, corners)


def overlaps(some: Tensor, others: Tensor) -> Tensor:
    """Return ``[n, a, b]``, intersection over union of corners ``[n, a, 4]`` and ``[n, b, 4]``."""
    common = _common(some, others)
    return _share(common, _areas(some)[:, :, None] + _areas(others)[:, None] - common)


def inside(some: Tensor, others: Tensor) -> Tensor:
    """Return ``[n, a, b]``, the share of each of ``some`` ``[n, a, 4]`` that is in each other."""
    return _share(_common(some, others), _areas(some)[:, :, None])


def _common(some: Tensor, others: Tensor) -> Tensor:
    some, others = some[:, :, None], others[:, None]
    ends = torch.minimum(some[..., 2:], others[..., 2:])
    sides = ends - torch.maximum(some[..., :2], others[..., :2])
    return sides.clamp(min=0).prod(-1)


def _areas(corners: Tensor) -> Tensor:
    return (corners[..., 2:] - corners[..., :2]).prod(-1)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1e-12), 0)
