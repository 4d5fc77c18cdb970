"""A quadratic function of non-negative numbers, minimised under ``torch.func.vmap``."""

from __future__ import annotations

import torch
from torch import Tensor

_SWEEPS = 60


def non_negative(matrix: Tensor, pull: Tensor) -> Tensor:
    """Return the rows ``x >= 0`` ``[rows, n]`` that minimise ``x @ matrix @ x / 2 - pull @ x``.

    By coordinate descent, one number after the other, a fixed number of times: a program whose
    course does not depend on the numbers.

    Args:
        matrix: ``[n, n]``, symmetric, positive semidefinite. Where its diagonal is zero, x is, too.
        pull: ``[rows, n]``.
    """
    diagonal = matrix.diagonal()
    inverse = torch.where(diagonal > 0, 1 / diagonal, 0)
    x = torch.zeros_like(pull)
    units = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device).unbind()
    for _ in range(_SWEEPS):
        for j, unit in enumerate(units):
            slope = x @ matrix[:, j] - pull[:, j]
            moved = (x[:, j] - slope * inverse[j]).clamp(min=0)
            x = x + (moved - x[:, j])[:, None] * unit
    return x
