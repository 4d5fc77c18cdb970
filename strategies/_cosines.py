"""What inner products say of updates: lengths, distances and cosines, and how surely."""

from __future__ import annotations

import torch
from torch import Tensor

#: Relative uncertainty of an update: four times the most by which float32 rounds an entry.
#: Inner products in float64 add nothing to it.
ROUNDING = 2 * torch.finfo(torch.float32).eps

#: Where a rule has no limit as updates become dependent, eigenvalues of their cosines are no
#: smaller. Its root, 3e-4, is far above the rounding of updates, and below what training tells.
APART = torch.finfo(torch.float32).eps


def squared_distances(gram: Tensor) -> Tensor:
    """Return ``[rows, rows]``, the squared distances of updates with these inner products."""
    square = gram.diagonal()
    return (square[:, None] + square - 2 * gram).clamp(min=0).fill_diagonal_(0)


def unit(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lengths ``[rows]`` of updates, none of them zero, and their cosines.

    Cosines, ``[rows, rows]``, are as precise for a short update as for a long one; in the inner
    products themselves, the longest one's rounding errors bury all that is 1e8 times shorter.

    Args:
        gram: ``[rows, rows]`` float64 inner products of the updates.
    """
    length = gram.diagonal().sqrt()
    return length, gram / torch.outer(length, length)


def root(cosines: Tensor, least: float = 0.0) -> Tensor:
    """Return ``[rows, rows]`` R with ``R.T @ R = cosines``: updates of unit length, as columns.

    Args:
        cosines: ``[rows, rows]``, of updates.
        least: smaller eigenvalues are raised to it. Updates that depend on one another become
            independent then, as if each had a small part that no other shares.
    """
    values, vectors = torch.linalg.eigh(cosines)
    return values.clamp(min=least).sqrt()[:, None] * vectors.T
