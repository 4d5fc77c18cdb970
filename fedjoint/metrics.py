"""Metrics as additive statistics, so that sums over clients give the exact pooled metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """A metric that a server can pool without seeing predictions.

    Attributes:
        name: for tables and plots.
        statistics: ``(output, y) -> [n, k]`` float64 statistics per example, zero where the
            label is missing; they are summed over examples and clients. The first is the count.
        value: ``[k]`` summed statistics -> the metric (NaN where it is undefined).
        higher_is_better: the direction.
    """

    name: str
    statistics: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], float]
    higher_is_better: bool = True


def _accuracy(output: Tensor, y: Tensor) -> Tensor:
    known = y >= 0
    return torch.stack([known, known & (output.argmax(-1) == y)], -1).double()


def _f1(output: Tensor, y: Tensor) -> Tensor:
    known = ~y.isnan().any(-1, keepdim=True)
    said, true = (output > 0) & known, (y > 0.5) & known
    counts = [known.sum(-1), (said & true).sum(-1), (said & ~true).sum(-1), (~said & true).sum(-1)]
    return torch.stack(counts, -1).double()


def _squares(output: Tensor, y: Tensor) -> Tensor:
    known = ~y.isnan().any(-1)
    y = y.nan_to_num().double() * known[..., None]
    error = torch.where(known, ((output.double() - y) ** 2).sum(-1), 0)
    return torch.cat([known[..., None].double(), error[..., None], y * y, y], -1)


def _r2(s: Tensor) -> float:
    # Several targets: the variance-weighted mean of their R2.
    outputs = (s.numel() - 2) // 2
    total = (s[2 : 2 + outputs] - s[2 + outputs :] ** 2 / s[0]).sum()
    return float(1 - s[1] / total) if s[0] > 1 and total > 0 else float("nan")


def _ratio(top: Tensor, bottom: Tensor) -> float:
    return float(top / bottom) if bottom > 0 else float("nan")


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", _accuracy, lambda s: _ratio(s[1], s[0])),
    "micro_f1": Metric("micro F1", _f1, lambda s: _ratio(2 * s[1], 2 * s[1] + s[2] + s[3])),
    "r2": Metric("R2", _squares, _r2),
    "rmse": Metric(
        "RMSE",
        _squares,
        lambda s: _ratio(s[1], s[0] * ((s.numel() - 2) // 2)) ** 0.5,
        higher_is_better=False,
    ),
}
