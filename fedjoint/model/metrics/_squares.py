"""The statistics of the metrics of squared errors."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.positions import by_position, known_positions, summed


def squares(output: Tensor, y: Tensor) -> Tensor:
    """Return ``[n, 3 + 2 k]``: counts, the squared error, and the targets squared and plain."""
    output, y = by_position(output, y)
    known = known_positions(y)
    y = y.nan_to_num().double() * known[..., None]
    error = torch.where(known, ((output.double() - y) ** 2).sum(-1), 0)
    return summed(known, error[..., None], y * y, y)
