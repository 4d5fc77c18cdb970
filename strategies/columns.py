"""Coordinate-wise statistics of the updates, in blocks of parameters to bound memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 1 << 22  # numbers worked on at a time


def by_columns(matrix: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``[P]``, ``statistic`` applied to blocks of columns of ``matrix`` ``[rows, P]``.

    Args:
        matrix: the updates.
        statistic: ``[width, rows] -> [width]``; rows come last, and contiguous.
    """
    width = max(1, BLOCK // len(matrix))
    blocks = matrix.split(width, dim=1)
    return torch.cat([statistic(block.T.contiguous()) for block in blocks])


def median(sorted_rows: Tensor) -> Tensor:
    """Return the median over the last axis of sorted values; the midpoint of the middle two."""
    n = sorted_rows.shape[-1]
    return (sorted_rows[..., (n - 1) // 2] + sorted_rows[..., n // 2]) / 2
