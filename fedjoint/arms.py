"""One way of training over several seeds: what comparisons are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fedjoint.config import Config
from fedjoint.data.pool import pooled
from fedjoint.problem import Problem, build_problem
from fedjoint.simulation import RunResult, simulate
from fedjoint.tasks import Task

OnRun = Callable[[str, int], None]


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

    def overall(self, split: str = "test") -> list[float]:
        """Return the mean over tasks of the last metric, by seed."""
        each = [self.final(task.name, split) for task in self.tasks]
        return [mean([values[seed] for values in each]) for seed in range(len(self.runs))]

    def conflicts(self) -> list[tuple[int, float]]:
        """Return ``(round, share of conflicting pairs of clients)``, the mean over seeds."""
        shares: dict[int, list[float]] = {}
        for run in self.runs:
            for r in run.records:
                share = ((r["diagnostics"] or {}).get("clients") or {}).get("conflicting")
                if share is not None:
                    shares.setdefault(r["round"], []).append(share)
        return [(round, mean(values)) for round, values in sorted(shares.items())]


def run_arm(
    name: str,
    config: Config,
    seeds: int,
    *,
    problem: Callable[[Config], Problem] = build_problem,
    on_run: OnRun = lambda name, seed: None,
) -> Arm:
    """Run ``config`` with ``seeds`` seeds, from its own upwards; data and partition follow.

    Args:
        name: of the arm.
        config: what to run.
        seeds: how many.
        problem: makes each seed's problem.
        on_run: hears of each run as it starts.
    """
    arm: Arm | None = None
    for seed in range(config.seed, config.seed + seeds):
        on_run(name, seed)
        seeded = config.model_copy(update={"seed": seed, "name": f"{config.name}-{name}"})
        made = problem(seeded)
        arm = arm or Arm(name, tuple(made.tasks))
        arm.runs.append(simulate(seeded, made))
    assert arm is not None
    return arm


def independent(config: Config) -> Config:
    """Return ``config`` with every client training alone, on the same local budget."""
    return _with_method(config, "independent")


def centralised(config: Config) -> Config:
    """Return ``config`` for one client with everyone's data: the same examples per round."""
    plain = _with_method(config, None)
    strategy = plain.strategy.model_copy(update={"fraction": 1.0, "min_clients": 1})
    if plain.local.epochs is not None:
        return plain.model_copy(update={"strategy": strategy})
    clients = max(1, round(config.data.clients * config.strategy.fraction))
    local = plain.local.model_copy(update={"steps": (plain.local.steps or 1) * clients})
    return plain.model_copy(update={"strategy": strategy, "local": local})


def _with_method(config: Config, method: str | None) -> Config:
    strategy = config.strategy.model_copy(update={"name": "fedavg", "options": {}})
    local = config.local.model_copy(update={"method": method})
    return config.model_copy(update={"strategy": strategy, "local": local})


def pooled_problem(config: Config) -> Problem:
    """Return the problem with one client that has everyone's data."""
    problem = build_problem(config)
    return replace(problem, data=pooled(problem.data, problem.tasks))


def mean(values: list[float]) -> float:
    """Return the mean of the finite values, NaN if there is none."""
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
