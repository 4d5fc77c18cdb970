"""One way of training over several seeds: what comparisons are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, build_problem
from fedjoint.simulation import RunResult, simulate

OnRun = Callable[[str, int], None]

#: A seed's configuration -> what to run, and on which problem.
Prepare = Callable[[Config], tuple[Config, Problem]]


@dataclass
class Arm:
    """The runs of one way of training.

    Attributes:
        name: for tables and plots.
        tasks: the tasks.
        runs: one per seed.
    """

    name: str
    tasks: tuple[Task, ...]
    runs: list[RunResult] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """Wall time of the rounds, by seed."""
        return [sum(r["seconds"]["round"] for r in run.records) for run in self.runs]

    @property
    def megabytes(self) -> list[float]:
        """Bytes between server and clients in millions, by seed."""
        return [sum(sum(r["bytes"].values()) for r in run.records) / 1e6 for run in self.runs]

    def final(self, task: str, split: str = "test") -> list[float]:
        """Return a task's last metric, by seed (NaN where it is undefined)."""
        return [_number(run.metrics.get(split, {}).get(task)) for run in self.runs]

    def curve(self, seed: int, task: str) -> list[tuple[int, float]]:
        """Return ``(round, test metric)`` of one run."""
        return [
            (r["round"], _number(r["evaluation"]["test"].get(task)))
            for r in self.runs[seed].records
            if r["evaluation"]
        ]

    def scores(self, split: str = "test") -> list[float]:
        """Return the mean over tasks of the last metric, by seed; more is better.

        Metrics that should fall count negatively. NaN where a task's is undefined.
        """
        return np.mean(self._signed(split), 0).tolist()

    def worst(self, split: str = "test") -> list[float]:
        """Return the worst task's last metric, by seed, counted as in :meth:`scores`."""
        return np.min(self._signed(split), 0).tolist()

    @property
    def kept(self) -> list[int]:
        """Rounds whose merge failed, so that the backbone was kept, by seed."""
        return [sum(r["kept"] is not None for r in run.records) for run in self.runs]

    def _signed(self, split: str) -> list[list[float]]:
        return [[sign(t) * v for v in self.final(t.name, split)] for t in self.tasks]

    def conflicts(self) -> list[tuple[int, float]]:
        """Return ``(round, share of conflicting pairs of clients)``, the mean over seeds."""
        shares: dict[int, list[float]] = {}
        for run in self.runs:
            for r in run.records:
                share = ((r["diagnostics"] or {}).get("clients") or {}).get("conflicting")
                if share is not None:
                    shares.setdefault(r["round"], []).append(share)
        return [(round, mean(values)) for round, values in sorted(shares.items())]


def as_it_is(config: Config) -> tuple[Config, Problem]:
    """Return ``config`` and the problem that it describes."""
    return config, build_problem(config)


def run_arm(
    name: str,
    config: Config,
    seeds: int,
    *,
    prepare: Prepare = as_it_is,
    on_run: OnRun = lambda name, seed: None,
) -> Arm:
    """Run ``config`` with ``seeds`` seeds, from its own upwards; data and partition follow.

    Args:
        name: of the arm.
        config: what to run.
        seeds: how many.
        prepare: makes each seed's run.
        on_run: hears of each run as it starts.
    """
    arm: Arm | None = None
    for seed in range(config.seed, config.seed + seeds):
        on_run(name, seed)
        folder = re.sub(r"[^\w.-]+", "_", f"{config.name}-{name}").strip("_")
        # A reference is of one seed; a comparison has one of its own.
        diagnostics = config.diagnostics.model_copy(update={"reference": None})
        changes = {"seed": seed, "name": folder, "diagnostics": diagnostics}
        seeded = config.model_copy(update=changes)
        made, problem = prepare(seeded)
        arm = arm or Arm(name, tuple(problem.tasks))
        arm.runs.append(simulate(made, problem))
    assert arm is not None
    return arm


def independent(config: Config) -> Config:
    """Return ``config`` with every client training alone, on the same local budget."""
    strategy = config.strategy.model_copy(update={"name": "fedavg", "options": {}})
    local = config.local.model_copy(update={"method": "independent", "options": {}})
    return config.model_copy(update={"strategy": strategy, "local": local})


def gains(arm: Arm, reference: Arm, task: Task) -> list[float]:
    """Return by how much ``arm`` is better than ``reference`` on the test data, by seed."""
    pairs = zip(arm.final(task.name), reference.final(task.name), strict=True)
    return [sign(task) * (own - other) for own, other in pairs]


def sign(task: Task) -> int:
    """Return 1 where more of the task's metric is better, else -1."""
    return 1 if task.metric_fn.higher_is_better else -1


def mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values, NaN if there is none."""
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
