"""Metrics as additive statistics, so that sums over clients give the exact pooled metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.positions import is_known
from fedjoint.options import check_maker, construct
from fedjoint.registry import find


@dataclass(frozen=True, eq=False)  # what users bring need not be hashable
class Metric:
    """A metric that a server can pool without seeing predictions.

    Attributes:
        name: for tables and plots.
        statistics: ``(output, y) -> [n, k]`` float64 statistics per example; those whose label is
            missing are there, too, and do not count. They are summed over examples and clients. The
            first is the count of examples with a label.
        value: ``[k]`` summed statistics -> the metric (NaN where it is undefined).
        higher_is_better: the direction.
        rows: ``[n, k]`` -> ``[n]``, what ``value`` is of every row, where there is a fast way.
        kinds: of the tasks that it is for; none: of all, whose labels it understands by itself.
        sums: ``(output, y) -> [c, k]``, the sums of the statistics of ``[c, n, ...]`` examples of
            each of c clients, where k is too large for statistics of every example.
    """

    name: str
    statistics: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], float]
    higher_is_better: bool = True
    rows: Callable[[Tensor], Tensor] | None = None
    kinds: tuple[str, ...] = ()
    sums: Callable[[Tensor, Tensor], Tensor] | None = None

    def summed(self, output: Tensor, y: Tensor) -> Tensor:
        """Return ``[c, k]``, the sums of the statistics of ``[c, n, ...]`` outputs and labels."""
        if self.sums is not None:
            return self.sums(output, y)
        # Metrics see [examples, ...]. One may count what has no label, such as padding.
        labels = y.flatten(0, 1)
        found = self.statistics(output.flatten(0, 1), labels)
        found = torch.where(is_known(labels)[:, None], found, 0)
        return found.unflatten(0, output.shape[:2]).sum(1)

    def each(self, sums: Tensor) -> Tensor:
        """Return ``[n]`` float64, the metric of every row of ``sums`` ``[n, k]``."""
        if self.rows is not None:
            return self.rows(sums)
        return torch.tensor([self.value(row) for row in sums], dtype=torch.float64)


def pooled(
    name: str,
    statistics: Callable[[Tensor, Tensor], Tensor],
    rows: Callable[[Tensor], Tensor],
    kinds: tuple[str, ...] = (),
    higher_is_better: bool = True,
) -> Metric:
    """Return a metric that is worked out for many rows of statistics at once.

    Args:
        name: for tables and plots.
        statistics: see :class:`Metric`.
        rows: ``[n, k]`` summed statistics -> ``[n]``, the metric of every row.
        kinds: see :class:`Metric`.
        higher_is_better: the direction.
    """

    def value(sums: Tensor) -> float:
        return float(rows(sums[None]))

    return Metric(name, statistics, value, higher_is_better, rows, kinds)


def counted(
    name: str,
    sums: Callable[[Tensor, Tensor], Tensor],
    rows: Callable[[Tensor], Tensor],
    kinds: tuple[str, ...],
) -> Metric:
    """Return a metric whose statistics are added up as they are counted; higher is better.

    Args:
        name: for tables and plots.
        sums: see :class:`Metric`.
        rows: see :func:`pooled`.
        kinds: see :class:`Metric`.
    """

    def statistics(output: Tensor, y: Tensor) -> Tensor:
        return sums(output[:, None], y[:, None])

    return replace(pooled(name, statistics, rows, kinds), sums=sums)


def ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """Return ``[n]``, one over the other, NaN where nothing was counted."""
    return torch.where(bottom > 0, top / bottom, torch.nan)


def make_metric(name: str, options: Mapping[str, Any]) -> Metric:
    """Return a metric by registered name or reference.

    What has the name is a metric, or a class or function that returns one.

    Raises:
        UserError: there is none, an option is wrong, or it is no metric.
    """
    metric = find("metrics", name)
    if not isinstance(metric, Metric) or options:
        check_maker(f"metric {name}", metric, Metric)
        metric = construct(f"metric {name}", metric, options)
    if not isinstance(metric, Metric):
        raise UserError(f"metric {name}: {type(metric).__name__} is no fedjoint.Metric")
    return metric
