"""Which tasks help which: measured by leaving each out, and guessed from one joint run.

Exact: with T tasks, T + 1 arms, joint training of all tasks and of all but each. The effect of
task i on task j is the test metric of j with i less that without, its sign turned where lower is
better. Without i, the clients that have no other task do not train.

Nearly free: the cosine of the tasks' mean updates, the mean over rounds of the joint run.

Another measure, which looks a step ahead in one joint run, is that of Fifty et al., "Efficiently
Identifying Task Groupings for Multi-Task Learning", NeurIPS 2021, https://arxiv.org/abs/2109.04617
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fedjoint.config.schema import Config
from fedjoint.engines.base import make_engine
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Arm, OnRun, Way
from fedjoint.experiments.client_tasks import compared
from fedjoint.experiments.cosines import mean_cosines
from fedjoint.experiments.intervals import Interval, columns, interval, of_all
from fedjoint.experiments.paired import Paired
from fedjoint.experiments.search import Search
from fedjoint.experiments.splits import overlap
from fedjoint.experiments.subsets import run_of
from fedjoint.experiments.tune import Tuner, Tuning, trained
from fedjoint.experiments.ways import JOINT
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, build_problem

SHARE, APART, OPEN = "share", "do not share", "not settled"


class Pair(NamedTuple):
    """Two tasks.

    Attributes:
        first: a task.
        second: another.
        onto_second: the effect of the first on the second.
        onto_first: the effect of the second on the first.
        both: the mean of these effects.
        cosine: of their mean updates.
    """

    first: str
    second: str
    onto_second: Interval
    onto_first: Interval
    both: Interval
    cosine: Interval

    @property
    def advice(self) -> str:
        """Whether to train the two together: only what the interval of ``both`` says."""
        if not self.both.clear:
            return OPEN
        return SHARE if self.both.mean > 0 else APART


class Agreement(NamedTuple):
    """Spearman's rank correlation of the mean effects with the cosines, over pairs of tasks.

    Attributes:
        rank: the correlation; None where it is not defined.
        pairs: how many pairs have both.
    """

    rank: float | None
    pairs: int


@dataclass(frozen=True)
class Affinity:
    """Joint training of all tasks, and of all but each.

    Attributes:
        joint: of all.
        without: task -> the arm without it.
        overlap: of the seeds' splits, see :func:`fedjoint.experiments.intervals.interval`.
        tuning: what was tried for each arm; empty where nothing was tuned.
    """

    joint: Arm
    without: dict[str, Arm]
    overlap: float = 0.0
    tuning: dict[str, Tuning] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks."""
        return self.joint.tasks

    @property
    def names(self) -> list[str]:
        """The names of the tasks."""
        return [task.name for task in self.tasks]

    @cached_property
    def effects(self) -> dict[tuple[str, str], list[float]]:
        """The effect of one task on another, by seed; (task that is left out, task measured)."""
        task = {task.name: task for task in self.tasks}
        return {
            (one, other): Paired(self.without[one], self.joint, self.overlap).gain(task[other])
            for one, other in permutations(self.names, 2)
        }

    @cached_property
    def cosines(self) -> np.ndarray:
        """``[seeds, tasks, tasks]``: cosines of mean updates; NaN where they are not told."""
        found = [mean_cosines(seed.records(), self.names) for seed in self.joint.seeds]
        return np.stack(found)

    @cached_property
    def pairs(self) -> list[Pair]:
        """All pairs of tasks."""
        place = {name: at for at, name in enumerate(self.names)}
        found = []
        for one, other in combinations(self.names, 2):
            there, back = self.effects[one, other], self.effects[other, one]
            both = [(a + b) / 2 for a, b in zip(there, back, strict=True)]
            told = self.cosines[:, place[one], place[other]].tolist()
            onto_other, onto_one, mean = (
                of_all(values, self.overlap) for values in (there, back, both)
            )
            cosine = interval(told, self.overlap)
            found.append(Pair(one, other, onto_other, onto_one, mean, cosine))
        return found

    @cached_property
    def agreement(self) -> Agreement:
        """How the two measures rank the pairs."""
        return agreement([(pair.both.mean, pair.cosine.mean) for pair in self.pairs])

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per ordered pair of tasks.

        ``effect`` is that of the task ``of`` on the task ``on``, in ``on``'s test metric, more is
        better; ``both`` the mean of it and of the effect the other way. Each is a mean over seeds,
        with half the width of its interval (``... 95 %``).
        """
        for pair in self.pairs:
            for one, other, effect in (
                (pair.first, pair.second, pair.onto_second),
                (pair.second, pair.first, pair.onto_first),
            ):
                row: dict[str, Any] = {"of": one, "on": other, "seeds": len(self.joint.seeds)}
                row |= columns("effect", effect) | columns("both", pair.both)
                yield row | columns("cosine", pair.cosine) | {"advice": pair.advice}


def agreement(pairs: Sequence[tuple[float, float]]) -> Agreement:
    """Return how alike two measures rank pairs of tasks.

    Args:
        pairs: both measures of each; pairs with a NaN are left out.
    """
    known = np.array([pair for pair in pairs if np.isfinite(pair).all()]).reshape(-1, 2)
    if len(known) < 2 or (known == known[:1]).all(0).any():
        return Agreement(None, len(known))
    return Agreement(float(stats.spearmanr(known[:, 0], known[:, 1]).statistic), len(known))


def affinity(
    config: Config,
    seeds: int,
    *,
    corrected: bool = True,
    search: Search | None = None,
    on_run: OnRun = lambda name, seed: None,
) -> Affinity:
    """Train all tasks jointly, and all but each, with ``seeds`` seeds.

    Args:
        config: the joint run.
        seeds: how many; an interval needs two or more.
        corrected: widen intervals by what the splits of one data set have in common.
        search: what is tuned, alike for every arm; None: nothing.
        on_run: hears of each run as it starts.

    Raises:
        UserError: there are fewer than three tasks, no round has diagnostics, a setting is wrong,
            or nobody can be trained.
    """
    first = build_problem(config)
    check_affinity(config, first)
    tasks = compared(config, first)
    ways = {task.name: Way(f"without {task.name}", _all_but(task.name)) for task in tasks}
    tuner = Tuner(search, first, config.seed + seeds, on_run)
    tuner.check([(way, config) for way in (JOINT, *ways.values())])
    common = overlap(config, first) if corrected else 0.0
    with make_engine(config.engine).session():
        joint = _trained(JOINT, config, seeds, tuner, on_run)
        without = {name: _trained(way, config, seeds, tuner, on_run) for name, way in ways.items()}
    return Affinity(joint, without, common, tuner.found)


def check_affinity(config: Config, problem: Problem) -> None:
    """Refuse, before anything is trained, what cannot tell which tasks help which.

    Raises:
        UserError: there are fewer than three tasks, or no round has diagnostics.
    """
    if (count := len(compared(config, problem))) < 3:
        raise UserError(
            f"affinity needs three tasks or more, and there are {count}: without one "
            "of two tasks, the other is trained per task, which fedjoint compare does"
        )
    every = config.diagnostics.every
    if not 0 < every <= config.rounds:
        raise UserError(
            f"diagnostics.every = {every}: no round tells the cosines of the tasks' updates; set "
            f"it from 1 to {config.rounds}, the number of rounds"
        )


def _all_but(name: str) -> Callable[[Config], list[tuple[Config, Problem]]]:
    def plan(config: Config) -> list[tuple[Config, Problem]]:
        problem = build_problem(config)
        others = [task.name for task in compared(config, problem) if task.name != name]
        return [run_of(config, problem, others)]

    return plan


def _trained(way: Way, config: Config, seeds: int, tuner: Tuner, on_run: OnRun) -> Arm:
    try:
        return trained(way, config, seeds, tuner, on_run)
    except UserError as error:
        raise UserError(f"{way.name}: {error}") from error
