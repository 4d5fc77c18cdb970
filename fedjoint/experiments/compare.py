"""Alone against per task against joint against centralised training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.engines.base import make_engine
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Arm, Cost, OnRun, Run, mean, sign
from fedjoint.experiments.auto import AUTO, auto
from fedjoint.experiments.centralised import CENTRALISED
from fedjoint.experiments.contestants import POOLED, More, contest
from fedjoint.experiments.groups import GROUPS
from fedjoint.experiments.intervals import columns, interval, p_value
from fedjoint.experiments.kept import DamagedError
from fedjoint.experiments.paired import Paired, overall
from fedjoint.experiments.per_task import PER_TASK
from fedjoint.experiments.search import Search
from fedjoint.experiments.splits import overlap
from fedjoint.experiments.trivial import by_seed, idle
from fedjoint.experiments.tune import Tuning, trained
from fedjoint.experiments.ways import ALONE, JOINT, WHOLE
from fedjoint.model.tasks import Task

#: Parts of the gain of joint training: from one arm to the other, and what is gained by it.
PARTS = {
    "more data for the task": (ALONE.name, PER_TASK.name),
    "transfer across tasks": (PER_TASK.name, JOINT.name),
    "both": (ALONE.name, JOINT.name),
    "sharing within groups": (PER_TASK.name, GROUPS),
    "sharing across groups": (GROUPS, JOINT.name),
    "heads of their own": (WHOLE.name, JOINT.name),
    "choice by validation": (ALONE.name, AUTO),
}

#: field of a :class:`fedjoint.experiments.arms.Cost` -> what it is called
COSTS = {"rounds": "rounds", "steps": "steps", "megabytes": "MB", "seconds": "seconds"}

#: What the trivial predictor is called.
TRIVIAL = "trivial"

#: What the mean over clients is called, where clients are tasks.
MEAN = "mean of clients"


@dataclass(frozen=True)
class Comparison:
    """Ways of training on the same data, over the same seeds.

    Attributes:
        arms: by name: ``alone``, ``per task``, ``joint``, ``auto``, ``centralised`` and, where
            asked for, ``groups``, ``per task, whole model``, ``joint, whole model`` and
            ``centralised per task``.
        overlap: of the seeds' splits, see :func:`fedjoint.experiments.intervals.interval`.
        left_out: arms that are not there, and why.
        tuning: what was tried for each arm; empty where nothing was tuned.
        trivial: task -> test metric of the trivial predictor, by seed, see
            :func:`fedjoint.experiments.trivial.trivial`.
    """

    arms: dict[str, Arm]
    overlap: float = 0.0
    left_out: dict[str, str] = field(default_factory=dict)
    tuning: dict[str, Tuning] = field(default_factory=dict)
    trivial: dict[str, list[float]] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks."""
        return self.arms[JOINT.name].tasks

    @property
    def pooled(self) -> Task | None:
        """The task of all clients together, where clients are tasks; else None."""
        return self.arms[JOINT.name].pooled

    @property
    def measured(self) -> tuple[Task, ...]:
        """The tasks and, before them, that of all clients together where clients are tasks."""
        return (self.pooled, *self.tasks) if self.pooled else self.tasks

    @cached_property
    def idle(self) -> tuple[str, ...]:
        """Tasks on which no arm is better than the trivial predictor."""
        return tuple(idle(self.tasks, self.arms.values(), self.trivial)) if self.trivial else ()

    @cached_property
    def passed(self) -> dict[str, str]:
        """Tasks on which centralised training is no upper reference -> the arm that is better.

        Means over seeds are compared, and the best of the other arms named.
        """
        if CENTRALISED.name not in self.arms:
            return {}
        found = {}
        for task in self.tasks:
            score = {n: sign(task) * mean(a.best(task.name)) for n, a in self.arms.items()}
            top = max((arm.name for arm in self._apart), key=lambda n: score[n])
            if score[top] > score[CENTRALISED.name]:
                found[task.name] = top
        return found

    @cached_property
    def parts(self) -> dict[str, Paired]:
        """The parts of the gain whose arms are there, see ``PARTS``."""
        return {
            part: Paired(self.arms[first], self.arms[second], self.overlap, self.idle)
            for part, (first, second) in PARTS.items()
            if first in self.arms and second in self.arms
        }

    @property
    def _apart(self) -> list[Arm]:
        """The arms that are trained with the data where they are."""
        return [arm for name, arm in self.arms.items() if name not in (*POOLED, AUTO)]

    @cached_property
    def regrets(self) -> dict[Task, Paired]:
        """Task -> ``auto`` against the arm with the best mean on the test data, both not pooled."""
        return {task: self.regret(task) for task in self.tasks}

    def regret(self, task: Task) -> Paired:
        """Return ``auto`` against the arm with the best mean on a task's test data."""
        best = max(self._apart, key=lambda arm: sign(task) * mean(arm.best(task.name)))
        return Paired(best, self.arms[AUTO], self.overlap, self.idle)

    def costs_to_target(self, arm: Arm, task: Task) -> list[Cost]:
        """Return what it takes ``arm`` to be as good as training alone at best.

        One of each seed in which it ever is, in the first evaluated round in which it is.
        """
        targets = self.arms[ALONE.name].best(task.name)
        found = [arm.cost_to(seed, task.name, target) for seed, target in enumerate(targets)]
        return [cost for cost in found if cost is not None]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row per metric and arm, and one per arm with the raw mean over tasks.

        ``test`` is the mean over seeds of the metric in the best round by validation, ``test 95 %``
        half the width of its interval, ``last`` the mean in the last round; ``rounds to target``,
        and steps of all clients, MB and seconds, are medians of the ``reached`` seeds that get
        there. ``std``, ``worst client`` and ``worst tenth`` are over the clients' own test metrics.
        Of a task's metrics after the first there is ``test``, in the same round.
        """
        arms = self.arms.values()
        rows = []
        for task in self.measured:
            rows += [self._of_task(task, arm) for arm in arms]
            rows += [self._of_nothing(task)] if self.trivial else []
            for measure, metric in list(task.measures.items())[1:]:
                found = [(arm, arm.best(task.name, measure=measure)) for arm in arms]
                rows += [self._row(task.name, metric.name, arm, test) for arm, test in found]
        if self.pooled:
            rows += [row for arm in arms for row in self._of_clients(self.pooled, arm)]
        return rows + [self._of_all(arm) for arm in arms]

    def _of_clients(self, pooled: Task, arm: Arm) -> Iterator[dict[str, Any]]:
        """Yield a row of each metric: its mean over clients, of whom it is defined for."""
        for at, metric in enumerate(pooled.metrics):
            each = [arm.best(task.name, measure=list(task.measures)[at]) for task in self.tasks]
            yield self._row(MEAN, metric.name, arm, mean_of(each))

    def _of_nothing(self, task: Task) -> dict[str, Any]:
        test = self.trivial[task.name]
        row = {"task": task.name, "metric": task.metric_fn.name, "arm": TRIVIAL, "seeds": len(test)}
        return row | columns("test", interval(test, self.overlap))

    def _of_task(self, task: Task, arm: Arm) -> dict[str, Any]:
        test = arm.best(task.name)
        reached = self.costs_to_target(arm, task)
        taken = {
            f"{what} to target": median(getattr(cost, field) for cost in reached) if reached else ""
            for field, what in COSTS.items()
        }
        return self._row(task.name, task.metric_fn.name, arm, test) | {
            "best round": mean(arm.rounds(task.name)),
            "last": mean(arm.last(task.name)),
            "train - test": sign(task) * mean(_differences(arm.best(task.name, "train"), test)),
            **taken,
            "reached": len(reached),
            "std": mean(arm.spread(task.name, "std")),
            "worst client": mean(arm.spread(task.name, "worst")),
            "worst tenth": mean(arm.spread(task.name, "worst_tenth")),
        }

    def _of_all(self, arm: Arm) -> dict[str, Any]:
        return self._row("mean", "", arm, arm.scores()) | {
            "train - test": mean(_differences(arm.scores("train"), arm.scores())),
            "learning rate": "" if math.isnan(arm.rate) else arm.rate,
            "steps per client": mean(arm.steps_per_client),
            "steps": mean(arm.steps),
            "MB": mean(arm.megabytes),
            "seconds": mean(arm.seconds),
        }

    def _row(self, task: str, metric: str, arm: Arm, test: list[float]) -> dict[str, Any]:
        row: dict[str, Any] = {"task": task, "metric": metric, "arm": arm.name, "seeds": len(test)}
        return row | columns("test", interval(test, self.overlap))

    def gains(self) -> list[dict[str, Any]]:
        """Return, for each part of the gain, one row of all tasks and one per task.

        ``gain`` is Delta-m in percent (``on`` is ``Delta-m %``), the share of tasks won (``tasks
        won``), or the difference of a task's test metrics, positive where the later arm is
        better. ``p`` is corrected for the parts, or for the tasks of a part, by Holm's method.
        """
        rows = []
        found = overall(self.parts)
        for part, pair in self.parts.items():
            by_task = pair.p_values()
            values = {"Delta-m %": pair.delta_m(), "tasks won": pair.won()}
            p_values = {"Delta-m %": found[part], "tasks won": math.nan}
            if self.pooled:
                values[self.pooled.name] = pair.gain(self.pooled)
                values[MEAN] = mean_of([pair.gain(task) for task in self.tasks])
                p_values |= {
                    on: p_value(values[on], self.overlap) for on in (self.pooled.name, MEAN)
                }
            for task in self.tasks:
                values[task.name], p_values[task.name] = pair.gain(task), by_task[task.name]
            for on, differences in values.items():
                row: dict[str, Any] = {"part": part, "on": on, "seeds": len(differences)}
                row |= {"from": pair.reference.name, "to": pair.arm.name, "p": p_values[on]}
                rows.append(row | columns("gain", pair.interval(differences)))
        return rows


def compare(
    config: Config,
    seeds: int,
    *,
    more: More = More(),  # noqa: B008 (frozen)
    corrected: bool = True,
    search: Search | None = None,
    on_run: OnRun = lambda name, seed: None,
    run: Run | None = None,
) -> Comparison:
    """Run the ways of training with ``seeds`` seeds each; an interval needs two or more.

    Training alone, per task and jointly take the same local steps; a client with several tasks
    takes them once for each of its tasks' backbones. Centralised training sees as many examples
    per round as all clients together.

    Args:
        config: the joint run.
        seeds: how many.
        more: what else is compared.
        corrected: widen intervals by what the splits of one data set have in common.
        search: what is tuned, alike for every arm; None: nothing.
        on_run: hears of each run as it starts.
        run: see :class:`fedjoint.experiments.arms.Way`.

    Raises:
        UserError: a setting is wrong, or nobody can be trained alone or jointly.
    """
    made = contest(config, seeds, more, search, on_run, run)
    common = overlap(made.config, made.problem) if corrected else 0.0
    arms, left_out = {}, dict(made.left_out)
    with make_engine(config.engine).session():
        for way in made.ways:
            try:
                arms[way.name] = trained(way, made.config, seeds, made.tuner, on_run)
            except DamagedError:
                raise
            except UserError as error:
                if way.name in (ALONE.name, JOINT.name):
                    raise UserError(f"{way.name}: {error}") from error
                left_out[way.name] = str(error)
    arms = _with_auto(arms, left_out)
    return Comparison(arms, common, left_out, made.tuner.found, by_seed(made.config, seeds))


def _with_auto(arms: dict[str, Arm], left_out: dict[str, str]) -> dict[str, Arm]:
    """Return the arms, and before those in one place what validation data pick among the others."""
    pooled = [arm for arm in arms.values() if arm.name in POOLED]
    apart = [arm for arm in arms.values() if arm.name not in POOLED]
    valid = [arm.best(task.name, "valid") for arm in apart for task in arm.tasks]
    if np.isnan(valid).all():
        left_out[AUTO] = "no client has validation data: set data.valid_fraction"
        return arms
    return {arm.name: arm for arm in [*apart, auto(apart), *pooled]}


def mean_of(each: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean over clients, by seed, of those of whom a metric is defined.

    Args:
        each: client -> by seed. A metric is undefined where a client's test data lack a class,
            say, whatever the way of training.
    """
    return [mean(values) for values in zip(*each, strict=True)]


def _differences(first: list[float], second: list[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]
