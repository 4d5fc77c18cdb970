"""How well a run's backbone serves clients that were kept out of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fedjoint.data.unseen import unseen
from fedjoint.errors import UserError
from fedjoint.experiments.adapt import (
    FACTORS,
    HEAD,
    SCRATCH,
    TUNED,
    Adaptation,
    adapt,
    begin,
    learnt,
    problem_to_adapt,
    settings_to_adapt,
)
from fedjoint.experiments.arms import sign
from fedjoint.model.metric import Metric
from fedjoint.model.tasks import Task, measures
from fedjoint.problem import Problem
from fedjoint.training.trainer import Trainer

#: The ways in which a new client makes its model.
WAYS = (HEAD, TUNED, SCRATCH)


@dataclass(frozen=True)
class Unseen:
    """Metrics of clients that trained, and of those that were kept out.

    Attributes:
        tasks: the tasks.
        clients: how many were kept out.
        train: task -> metric of those that trained, on their training examples.
        test: the same on their test examples.
        adapted: (way, steps, task) -> test metric of those kept out, after so many steps.
    """

    tasks: tuple[Task, ...]
    clients: int
    train: dict[str, float | None]
    test: dict[str, float | None]
    adapted: dict[tuple[str, int, str], float]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per task, way and number of steps, with both gaps.

        ``out-of-sample gap`` is train less test of the clients that trained, ``participation gap``
        is their test less that of the clients kept out; of a metric that should fall, the other
        way round: above zero, new data are worse.

        Paper: Yuan et al., "What Do We Mean by Generalization in Federated Learning?", ICLR 2022,
        https://arxiv.org/abs/2110.14216
        """
        by_name = measures(self.tasks)
        return [
            {"task": name, "metric": by_name[name].name, "way": way, "steps": steps}
            | {"train": self.train.get(name), "test": self.test.get(name), "unseen": value}
            | {
                "out-of-sample gap": _gap(by_name[name], self.train.get(name), self.test.get(name)),
                "participation gap": _gap(by_name[name], self.test.get(name), value),
            }
            for (way, steps, name), value in self.adapted.items()
        ]


def generalise(
    path: str | Path,
    steps: Sequence[int] = (1, 10, 100),
    *,
    backbone: int | None = None,
    problem: Problem | None = None,
) -> Unseen:
    """Adapt a run's backbone to the clients that ``data.unseen_clients`` kept out.

    Each has a fresh head, trained on its own training examples with the run's batch size and
    optimiser: on the frozen backbone, with the backbone, or with a fresh backbone. Metrics are
    pooled over clients, as those of the run. For each task, way and number of steps, the clients'
    validation examples choose one of three learning rates.

    Args:
        path: the run directory.
        steps: optimiser steps; each number is tried.
        backbone: which one of the run, from 0, where its strategy keeps several.
        problem: the run's own problem, where it did not come from the configuration.

    Raises:
        UserError: there is no such run, or it kept no client out.
    """
    run = learnt(Path(path), problem, backbone)
    config = run.config
    if not config.data.unseen_clients:
        raise UserError(f"{path}: the run kept no client out; set data.unseen_clients before it")
    data = config.data.model_copy(update={"unseen_clients": 0})
    everyone = config.model_copy(update={"data": data})
    problem = problem_to_adapt(run, everyone, problem)
    ids = unseen(problem.data, config)
    evaluation = next((r.evaluation for r in reversed(run.records) if r.evaluation), None) or {}
    adapted: dict[tuple[str, int, str], float] = {}
    for way in WAYS:
        trainer, start = begin(run, problem, settings_to_adapt(run, everyone), way)
        for count in steps:
            tried = [_measured(trainer, start, ids, way, count, factor) for factor in FACTORS]
            for task in problem.tasks:
                best = _best(task, tried)
                known = [name for name in task.measures if ("test", name) in best]
                adapted |= {(way.name, count, name): best["test", name] for name in known}
    train, test = evaluation.get("train", {}), evaluation.get("test", {})
    return Unseen(tuple(problem.tasks), len(ids), train, test, adapted)


def _measured(
    trainer: Trainer, backbone: Tensor, ids: np.ndarray, way: Adaptation, steps: int, factor: float
) -> dict[tuple[str, str], float]:
    """Return (split, what tables call a metric) -> the metric of all clients after adaptation."""
    sums: dict[tuple[str, str], Tensor] = {}
    for part in adapt(trainer, backbone, ids, steps=steps, whole=way.whole, factor=factor):
        for name, values in part.statistics.items():
            split, _, measure = name.partition("/")
            sums[split, measure] = sums.get((split, measure), 0) + values.sum(0)
    metrics = measures(trainer.problem.tasks)
    return {key: metrics[key[1]].value(total) for key, total in sums.items()}


def _best(
    task: Task, tried: Sequence[dict[tuple[str, str], float]]
) -> dict[tuple[str, str], float]:
    """Return what is best by validation; without that, what the run's own learning rate gives."""

    def score(at: int) -> tuple[float, bool]:
        valid = tried[at].get(("valid", task.name), math.nan)
        return sign(task) * valid if math.isfinite(valid) else -math.inf, FACTORS[at] == 1

    return tried[max(range(len(tried)), key=score)]


def _gap(metric: Metric, better: float | None, worse: float | None) -> float | None:
    if better is None or worse is None:
        return None
    return better - worse if metric.higher_is_better else worse - better
