"""A client's task vectors as one: what travels of them under MaTU, either way.

The vectors ``v_t`` of the tasks are unified coordinate by coordinate: the sign of their sum, and
the largest size among those of that sign. Task t's *mask* says where it has that sign, and its
*factor* makes the masked unified vector as long as ``v_t`` in the 1-norm. So a vector of P numbers
for all tasks together, and for each task P bits and a number, stand for a vector of each task.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Relative uncertainty of a coordinate: what cancels out up to rounding elects no sign.
_ROUNDING = 2 * torch.finfo(torch.float32).eps


class Unified(NamedTuple):
    """Task vectors as one.

    Attributes:
        vector: ``[..., P]``.
        masks: ``[..., tasks, P]`` bool.
        factors: ``[..., tasks]``.
    """

    vector: Tensor
    masks: Tensor
    factors: Tensor

    def vectors(self) -> Tensor:
        """``[..., tasks, P]``, what the masks and factors make of the vector."""
        return self.factors[..., None] * self.masks * self.vector[..., None, :]


def unified(vectors: Tensor) -> Unified:
    """Unify ``vectors`` ``[..., tasks, P]``."""
    total, each = vectors.sum(-2), vectors.unbind(-2)
    length, largest = torch.zeros_like(total), torch.zeros_like(total)
    for one in each:  # one task at a time: P numbers of memory, not tasks * P
        length += one.abs()
    sign = total.sign() * (total.abs() > _ROUNDING * length)
    for one in each:
        largest = torch.maximum(largest, one * sign)
    masks = torch.stack([one * sign > 0 for one in each], -2)
    agreed = torch.stack([(largest * mask).sum(-1) for mask in masks.unbind(-2)], -1)
    long = torch.stack([one.abs().sum(-1) for one in each], -1)
    return Unified(largest * sign, masks, torch.where(agreed > 0, long / agreed, 0.0))


def packed(masks: Tensor) -> Tensor:
    """Return bool ``masks`` ``[..., P]`` as bits, ``[..., ceil(P / 8)]`` uint8."""
    padded = torch.nn.functional.pad(masks.to(torch.uint8), (0, -masks.shape[-1] % 8))
    return (padded.unflatten(-1, (-1, 8)) * _places(masks)).sum(-1, dtype=torch.uint8)


def unpacked(bits: Tensor, size: int) -> Tensor:
    """Return ``[..., size]`` bool masks that were :func:`packed`."""
    return ((bits[..., None] & _places(bits)) > 0).flatten(-2)[..., :size]


def _places(like: Tensor) -> Tensor:
    return torch.tensor([1 << place for place in range(8)], dtype=torch.uint8, device=like.device)


def key(tasks: list[str]) -> str:
    """Return what a set of tasks is called, whatever their order; no task's name has a slash."""
    return "/".join(sorted(tasks))
