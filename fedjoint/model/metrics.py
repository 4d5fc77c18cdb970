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
        rows: ``[n, k]`` -> ``[n]``, what ``value`` is of every row, where there is a fast way.
    """

    name: str
    statistics: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], float]
    higher_is_better: bool = True
    rows: Callable[[Tensor], Tensor] | None = None

    def each(self, sums: Tensor) -> Tensor:
        """Return ``[n]`` float64, the metric of every row of ``sums`` ``[n, k]``."""
        if self.rows is not None:
            return self.rows(sums)
        return torch.tensor([self.value(row) for row in sums], dtype=torch.float64)


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


def _r2(s: Tensor) -> Tensor:
    # Several targets: the variance-weighted mean of their R2.
    count, error = s[:, 0], s[:, 1]
    squares, totals = s[:, 2:].chunk(2, 1)
    spread = (squares - totals**2 / count[:, None]).sum(1)
    return torch.where((count > 1) & (spread > 0), 1 - error / spread, torch.nan)


def _mean_square(s: Tensor) -> Tensor:
    outputs = (s.shape[1] - 2) // 2
    return _ratio(s[:, 1], s[:, 0] * outputs)


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    return torch.where(bottom > 0, top / bottom, torch.nan)


def _metric(
    name: str,
    statistics: Callable[[Tensor, Tensor], Tensor],
    rows: Callable[[Tensor], Tensor],
    higher_is_better: bool = True,
) -> Metric:
    def value(sums: Tensor) -> float:
        return float(rows(sums[None]))

    return Metric(name, statistics, value, higher_is_better, rows)


METRICS: dict[str, Metric] = {
    "accuracy": _metric("accuracy", _accuracy, lambda s: _ratio(s[:, 1], s[:, 0])),
    "micro_f1": _metric(
        "micro F1", _f1, lambda s: _ratio(2 * s[:, 1], 2 * s[:, 1] + s[:, 2] + s[:, 3])
    ),
    "r2": _metric("R2", _squares, _r2),
    "rmse": _metric("RMSE", _squares, lambda s: _mean_square(s).sqrt(), higher_is_better=False),
}
