"""One way of training over several seeds: what comparisons are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.experiments.client_tasks import compared, pooled_of, told
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.result import RunResult
from fedjoint.server.best import Best
from fedjoint.simulation import simulate

OnRun = Callable[[str, int], None]
Run = Callable[[Config, Problem], RunResult]


@dataclass(frozen=True)
class Way:
    """A way of training.

    Attributes:
        name: for tables and plots.
        plan: a seed's configuration -> the runs that it takes, each with its problem.
        merges: whether the configured strategy and local method are those that run.
        alone: whether every client trains alone.
        run: trains a run, or returns what is kept of one; None: :func:`fedjoint.simulate`.
    """

    name: str
    plan: Callable[[Config], list[tuple[Config, Problem]]]
    merges: bool = True
    alone: bool = False
    run: Run | None = None

    def train(self, config: Config) -> tuple[tuple[Task, ...], Trained]:
        """Train a seed: return its tasks, and what it left."""
        plan = self.plan(config)
        problems = [problem for _, problem in plan]
        training = np.any([problem.data.sizes > 0 for problem in problems], axis=0)
        tasks = tuple(task for made, problem in plan for task in compared(made, problem))
        return tasks, Trained(self.runs(plan), int(training.sum()))

    def runs(self, plan: Sequence[tuple[Config, Problem]]) -> tuple[RunResult, ...]:
        """Train what is planned."""
        run = self.run or simulate
        return tuple(told(run(_named(made, self.name), problem)) for made, problem in plan)


@dataclass(frozen=True)
class Trained:
    """One seed of an arm.

    Attributes:
        runs: one of all tasks, or one of each task or group of tasks.
        clients: how many have training examples.
        others: runs that were trained to choose these.
    """

    runs: tuple[RunResult, ...]
    clients: int
    others: tuple[RunResult, ...] = ()

    def of(self, task: str) -> RunResult | None:
        """Return the run that has a task's metrics; any where none has, None where several have.

        Those are runs of groups of clients, each of which pools over its own, and none over all.
        """
        found = [run for run in self.runs if task in run.metrics.get("test", {})]
        return None if len(found) > 1 else (found or list(self.runs))[0]

    def records(self) -> Iterator[RoundRecord]:
        """Yield the records of all rounds of all runs."""
        for run in self.runs:
            yield from run.records


class Cost(NamedTuple):
    """What a run took up to a round, that round included.

    Attributes:
        rounds: how many.
        steps: gradient steps of all clients together.
        megabytes: between server and clients.
        seconds: wall time.
    """

    rounds: float
    steps: float
    megabytes: float
    seconds: float


@dataclass
class Arm:
    """A way of training, over seeds.

    Attributes:
        name: for tables and plots.
        tasks: the tasks.
        seeds: what each seed left.
        rate: the learning rate.
        alone: whether every client trains alone, so that tasks share nothing.
        pooled: the task of all clients together, where clients are tasks; else None.
    """

    name: str
    tasks: tuple[Task, ...]
    seeds: list[Trained] = field(default_factory=list)
    rate: float = math.nan
    alone: bool = False
    pooled: Task | None = None
    _chosen: dict[tuple[int, str], list[RoundRecord]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def apart(self, task: str) -> bool:
        """Say whether a task's metric is of single runs alone, each of some of the clients."""
        return all(seed.of(task) is None for seed in self.seeds)

    @property
    def seconds(self) -> list[float]:
        """Wall time of the rounds, by seed."""
        return [sum(r.seconds.round for r in seed.records()) for seed in self.seeds]

    @property
    def megabytes(self) -> list[float]:
        """Bytes between server and clients in millions, by seed."""
        return [sum(r.bytes.down + r.bytes.up for r in seed.records()) / 1e6 for seed in self.seeds]

    @property
    def steps(self) -> list[float]:
        """Gradient steps of all clients together, by seed."""
        return [float(sum(r.steps.total for r in seed.records())) for seed in self.seeds]

    @property
    def steps_per_client(self) -> list[float]:
        """Gradient steps over clients with training examples, by seed."""
        return [n / seed.clients for n, seed in zip(self.steps, self.seeds, strict=True)]

    @property
    def kept(self) -> list[int]:
        """Rounds whose merge failed, so that the backbone was kept, by seed."""
        return [sum(r.kept is not None for r in seed.records()) for seed in self.seeds]

    def best(self, task: str, split: str = "test", measure: str | None = None) -> list[float]:
        """Return a task's metric in the best round by validation, by seed (NaN: undefined).

        It is that which decides, or another ``measure`` of the task's, see :class:`Task`.

        That is the last of the rounds that are best by :class:`fedjoint.server.best.Best`, over
        all tasks of the run that the task is in, as these share what is trained; or over the task
        alone where every client trains alone. Without validation data it is the last round.
        """
        return [_of(self.chosen(seed, task), split, measure or task) for seed in self.seeds]

    def peak(self, task: Task) -> list[float]:
        """Return a task's best validation metric of all rounds, by seed (NaN: undefined)."""
        found = []
        for seed in self.seeds:
            told = [_of([r], "valid", task.name) for r in _evaluated(seed, task.name)]
            known = [sign(task) * value for value in told if not math.isnan(value)]
            found.append(sign(task) * max(known, default=math.nan))
        return found

    def last(self, task: str, split: str = "test") -> list[float]:
        """Return a task's last metric, by seed (NaN where it is undefined)."""
        return [_of(_evaluated(seed, task)[-1:], split, task) for seed in self.seeds]

    def rounds(self, task: str) -> list[float]:
        """Return a task's best round, see :meth:`best`, by seed; NaN without any evaluation."""
        chosen = [self.chosen(seed, task) for seed in self.seeds]
        return [float(records[0].round) if records else math.nan for records in chosen]

    def chosen(self, seed: Trained, task: str) -> list[RoundRecord]:
        """Return the record of a task's best round, see :meth:`best`, if there is one."""
        key = id(seed.of(task)), task if self.alone else ""
        if key not in self._chosen:  # of tasks that share a run it is one, and they may be many
            self._chosen[key] = self._choose(seed, task)
        return self._chosen[key]

    def _choose(self, seed: Trained, task: str) -> list[RoundRecord]:
        records = _evaluated(seed, task)
        valid = (records[-1].evaluation or {}).get("valid", {}) if records else {}
        apart = [t for t in (*self.tasks, self.pooled) if t and t.name == task]
        together = [t for t in (apart if self.alone else self.tasks) if t.name in valid]
        best, chosen = Best(), records[-1:]
        for record in records:
            if together and best.beaten(record.evaluation or {}, together):
                chosen = [record]
        return chosen

    def spread(self, task: str, what: str) -> list[float]:
        """Return how a task's test metric in its best round spreads over its clients, by seed.

        Args:
            task: the task's name.
            what: ``std``, ``worst`` or ``worst_tenth``, see
                :func:`fedjoint.server.evaluation.spread`. NaN where fewer than two clients have
                the metric.
        """
        found = []
        for seed in self.seeds:
            told = [record.spread or {} for record in self.chosen(seed, task)]
            values = told[0].get(task, {}) if told else {}
            several = values.get("clients", 0) > 1
            found.append(_number(values.get(what) if several else None))
        return found

    def curve(self, seed: int, task: str) -> list[tuple[int, float]]:
        """Return ``(round, test metric)`` of one seed."""
        return [(r.round, _number(r.test.get(task))) for r in _evaluated(self.seeds[seed], task)]

    def cost_to(self, seed: int, task: str, target: float) -> Cost | None:
        """Return what it took until a task's test metric was as good as ``target``; None: it never.

        It is that of the run that the task is in: of all tasks that share a model.

        Args:
            seed: which one, from 0.
            task: the task's name.
            target: of its test metric.
        """
        known = [each for each in (*self.tasks, self.pooled) if each]
        up = sign(next(each for each in known if each.name == task))
        steps = megabytes = seconds = 0.0
        for record in _records(self.seeds[seed], task):
            steps += record.steps.total
            megabytes += (record.bytes.down + record.bytes.up) / 1e6
            seconds += record.seconds.round
            if record.evaluation and up * _number(record.test.get(task)) >= up * target:
                return Cost(float(record.round), steps, megabytes, seconds)
        return None

    def scores(self, split: str = "test") -> list[float]:
        """Return the mean over tasks of their metrics, see :meth:`best`, by seed; more is better.

        Metrics that should fall count negatively. NaN where a task's is undefined.
        """
        return np.mean(self._signed(split), 0).tolist()

    def worst(self, split: str = "test") -> list[float]:
        """Return the worst task's metric, by seed, counted as in :meth:`scores`."""
        return np.min(self._signed(split), 0).tolist()

    def conflicts(self) -> list[tuple[int, float]]:
        """Return ``(round, share of conflicting pairs of clients)``, the mean over runs."""
        shares: dict[int, list[float]] = {}
        for seed in self.seeds:
            for r in seed.records():
                share = ((r.diagnostics or {}).get("clients") or {}).get("conflicting")
                if share is not None:
                    shares.setdefault(r.round, []).append(share)
        return [(round, mean(values)) for round, values in sorted(shares.items())]

    def _signed(self, split: str) -> list[list[float]]:
        return [[sign(t) * v for v in self.best(t.name, split)] for t in self.tasks]


def run_arm(
    way: Way,
    config: Config,
    seeds: int,
    *,
    on_run: OnRun = lambda name, seed: None,
) -> Arm:
    """Train with ``seeds`` seeds, from ``config``'s own upwards; data and partition follow.

    Args:
        way: how.
        config: what a way makes its runs of.
        seeds: how many.
        on_run: hears of each seed as it starts.
    """
    # A reference is of one seed; a comparison has one of its own.
    diagnostics = config.diagnostics.model_copy(update={"reference": None})
    arm = Arm(way.name, (), rate=config.local.optimiser.lr, alone=way.alone)
    for seed in range(config.seed, config.seed + seeds):
        on_run(way.name, seed)
        made = config.model_copy(update={"seed": seed, "diagnostics": diagnostics})
        arm.tasks, found = way.train(made)
        arm.pooled = pooled_of(arm.tasks) if made.data.clients_are_tasks else None
        arm.seeds.append(found)
    return arm


def sign(task: Task) -> int:
    """Return 1 where more of the task's metric is better, else -1."""
    return 1 if task.metric_fn.higher_is_better else -1


def mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values, NaN if there is none."""
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def _named(config: Config, way: str) -> Config:
    """Return ``config`` with a name for the run's folder that says the way of training, too."""
    folder = re.sub(r"[^\w.-]+", "_", f"{config.name}-{way}").strip("_")
    return config.model_copy(update={"name": folder})


def _records(seed: Trained, task: str) -> list[RoundRecord]:
    run = seed.of(task)
    return run.records if run else []


def _evaluated(seed: Trained, task: str) -> list[RoundRecord]:
    return [record for record in _records(seed, task) if record.evaluation]


def _of(records: Sequence[RoundRecord], split: str, task: str) -> float:
    """Return a metric of the only record; NaN where there is none, or it is undefined."""
    known = records[0].evaluation if records else None
    return _number((known or {}).get(split, {}).get(task))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
