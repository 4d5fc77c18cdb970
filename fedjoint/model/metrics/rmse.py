"""RMSE: the root of the mean squared error; lower is better."""

from __future__ import annotations

from torch import Tensor

from fedjoint.model.families import TARGETS
from fedjoint.model.metric import pooled, ratio
from fedjoint.model.metrics._squares import squares


def _mean_square(s: Tensor) -> Tensor:
    outputs = (s.shape[1] - 3) // 2
    return ratio(s[:, 2], s[:, 1] * outputs)


rmse = pooled("RMSE", squares, lambda s: _mean_square(s).sqrt(), TARGETS, higher_is_better=False)
