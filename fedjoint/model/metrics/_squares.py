"""The statistics of the metrics of squared errors."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.positions import by_position, known_positions


def squares(output: Tensor, y: Tensor) -> Tensor:
    """Return ``[n, 2 + 2 k]``: the count, the squared error, and the targets squared and plain."""
    output, y = by_position(output, y)
    known = known_positions(y)
    y = y.nan_to_num().double() * known[..., None]
    error = torch.where(known, ((output.double() - y) ** 2).sum(-1), 0)
    return torch.cat([known[..., None].double(), error[..., None], y * y, y], -1).sum(1)
