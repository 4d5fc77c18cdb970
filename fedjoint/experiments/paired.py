"""Two arms on the same splits, compared seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedjoint.experiments.arms import Arm, sign
from fedjoint.experiments.intervals import Interval, holm, of_all, p_value
from fedjoint.experiments.statistics import delta_m, won
from fedjoint.model.tasks import Task

_Measure = Callable[[Sequence[float], Sequence[float], Sequence[bool]], float]


@dataclass(frozen=True)
class Paired:
    """An arm and what it is compared with.

    Attributes:
        reference: what it is compared with, over the same seeds.
        arm: the arm.
        overlap: of the seeds' splits, see :func:`fedjoint.experiments.intervals.interval`.
        idle: tasks that no arm has learnt: a gain on them is none, and they are in no mean over
            tasks.
    """

    reference: Arm
    arm: Arm
    overlap: float
    idle: tuple[str, ...] = ()

    def gain(self, task: Task) -> list[float]:
        """Return by how much the arm is better on the test data, by seed."""
        pairs = zip(self.arm.best(task.name), self.reference.best(task.name), strict=True)
        return [sign(task) * (own - other) for own, other in pairs]

    def delta_m(self) -> list[float]:
        """Return Delta-m in percent, by seed."""
        return self._over_tasks(delta_m)

    def won(self) -> list[float]:
        """Return the share of tasks on which the arm is better, by seed."""
        return self._over_tasks(won)

    def interval(self, differences: Sequence[float]) -> Interval:
        """Return the interval of differences by seed; NaN where a seed's is not known."""
        return of_all(differences, self.overlap)

    def p_values(self) -> dict[str, float]:
        """Return the p-value of each task's gain, corrected for as many tasks."""
        found = {t.name: p_value(self.gain(t), self.overlap) for t in self.arm.tasks}
        return holm(found)

    def _over_tasks(self, measure: _Measure) -> list[float]:
        tasks = [task for task in self.reference.tasks if task.name not in self.idle]
        if not tasks:
            return [math.nan] * len(self.arm.seeds)
        ups = np.array([task.metric_fn.higher_is_better for task in tasks])
        own = np.array([self.arm.best(task.name) for task in tasks]).T
        other = np.array([self.reference.best(task.name) for task in tasks]).T
        counts = np.ones_like(own, bool)
        if self.arm.pooled:  # clients whose test data leave the metric undefined, say of one class
            counts = ~(np.isnan(own) & np.isnan(other))
        rows = zip(own, other, counts, strict=True)
        return [measure(s[c].tolist(), r[c].tolist(), ups[c].tolist()) for s, r, c in rows]


def overall(pairs: Mapping[str, Paired]) -> dict[str, float]:
    """Return the p-value of each pair's Delta-m, corrected for as many pairs."""
    return holm({name: p_value(pair.delta_m(), pair.overlap) for name, pair in pairs.items()})
