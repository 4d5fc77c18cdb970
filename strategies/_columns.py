"""Coordinate-wise statistics of the updates, in blocks of parameters to bound memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 22  # numbers worked on at a time


def by_columns(
    matrix: Tensor, statistic: Callable[[Tensor], Tensor], rows: Tensor | None = None
) -> Tensor:
    """Return ``[P]``, ``statistic`` applied to blocks of sorted columns of ``matrix``.

    Args:
        matrix: ``[rows, P]``, the updates.
        statistic: ``[width, rows] -> [width]``; the values of a parameter ascend.
        rows: the rows that count; by default all.
    """
    width = max(1, BLOCK // len(matrix))
    found = []
    for block in matrix.split(width, dim=1):
        chosen = block if rows is None else block[rows]
        # NumPy sorts short rows many times faster than PyTorch, which keeps track of places.
        values = np.sort(chosen.T.contiguous().cpu().numpy(), axis=1)
        found.append(statistic(torch.from_numpy(values)))
    return torch.cat(found).to(matrix.device)


def middle(sorted_rows: Tensor) -> Tensor:
    """Return the median over the last axis of sorted values; the midpoint of the middle two."""
    n = sorted_rows.shape[-1]
    return sorted_rows[..., (n - 1) // 2] / 2 + sorted_rows[..., n // 2] / 2  # no overflow
