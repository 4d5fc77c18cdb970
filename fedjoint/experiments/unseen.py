"""How well a run's backbone serves clients that were kept out of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fedjoint.data.unseen import unseen
from fedjoint.errors import UserError
from fedjoint.experiments.adapt import (
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
    optimiser: on the frozen backbone, with the backbone, or with a fresh backbone. Test metrics
    are pooled over clients, as those of the run.

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
            adapted |= _tested(trainer, start, ids, way, count)
    train, test = evaluation.get("train", {}), evaluation.get("test", {})
    return Unseen(tuple(problem.tasks), len(ids), train, test, adapted)


def _tested(
    trainer: Trainer, backbone: Tensor, ids: np.ndarray, way: Adaptation, steps: int
) -> dict[tuple[str, int, str], float]:
    sums: dict[str, Tensor] = {}
    for part in adapt(trainer, backbone, ids, steps=steps, whole=way.whole):
        for name, values in part.statistics.items():
            split, _, measure = name.partition("/")
            if split == "test":
                sums[measure] = sums.get(measure, 0) + values.sum(0)
    metrics = measures(trainer.problem.tasks)
    return {(way.name, steps, name): metrics[name].value(total) for name, total in sums.items()}


def _gap(metric: Metric, better: float | None, worse: float | None) -> float | None:
    if better is None or worse is None:
        return None
    return better - worse if metric.higher_is_better else worse - better
