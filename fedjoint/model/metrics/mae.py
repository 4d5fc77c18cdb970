"""MAE: the mean absolute error over targets; lower is better."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.families import TARGETS
from fedjoint.model.metric import pooled, ratio
from fedjoint.model.positions import by_position, known_positions, summed


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    output, y = by_position(output, y)
    known = known_positions(y)
    error = torch.where(known, (output.double() - y.nan_to_num().double()).abs().mean(-1), 0)
    return summed(known, error[..., None])


mae = pooled("MAE", _statistics, lambda s: ratio(s[:, 2], s[:, 1]), TARGETS, higher_is_better=False)
