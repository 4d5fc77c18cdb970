"""How well a run's backbone serves clients that were kept out of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.data.unseen import unseen
from fedjoint.errors import UserError
from fedjoint.experiments.adapt import HEAD, SCRATCH, TUNED, Adaptation, adapt
from fedjoint.model.metric import Metric
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, build_problem, settled
from fedjoint.runs.directory import RunDir
from fedjoint.runs.initial import fit_initial
from fedjoint.runs.whole import check_whole
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
        by_name = {n: m for task in self.tasks for n, m in task.measures.items()}
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
    path: str | Path, steps: Sequence[int] = (1, 10, 100), *, problem: Problem | None = None
) -> Unseen:
    """Adapt a run's backbone to the clients that ``data.unseen_clients`` kept out.

    Each has a fresh head, trained on its own training examples with the run's batch size and
    optimiser: on the frozen backbone, with the backbone, or with a fresh backbone. Test metrics
    are pooled over clients, as those of the run.

    Args:
        path: the run directory.
        steps: optimiser steps; each number is tried.
        problem: the run's own problem, where it did not come from the configuration.

    Raises:
        UserError: there is no such run, or it kept no client out.
    """
    run = RunDir.open(Path(path))
    run.described(problem)
    config = run.config()
    whole = check_whole(run, states=False)
    if whole.newest is None:
        raise UserError(f"{path}: the run has no checkpoint yet")
    if not config.data.unseen_clients:
        raise UserError(f"{path}: the run kept no client out; set data.unseen_clients before it")
    everyone = _everyone(config)
    problem = settled(problem, everyone) if problem else build_problem(everyone)
    ids = unseen(problem.data, config)
    evaluation = next((r.evaluation for r in reversed(whole.records) if r.evaluation), None) or {}
    adapted: dict[tuple[str, int, str], float] = {}
    for way in WAYS:
        for count in steps:
            trainer, backbone = _start(path, config, problem, whole.newest.whole, way, count)
            adapted |= _tested(trainer, backbone, ids, way, count)
    train, test = evaluation.get("train", {}), evaluation.get("test", {})
    return Unseen(tuple(problem.tasks), len(ids), train, test, adapted)


def _everyone(config: Config) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"unseen_clients": 0})})


def _start(
    path: str | Path,
    config: Config,
    problem: Problem,
    tensors: dict[str, Tensor],
    way: Adaptation,
    steps: int,
) -> tuple[Trainer, Tensor]:
    """Return a trainer of ``steps`` steps, and the backbone to start from."""
    initial = str(path) if way.transferred else config.model.initial
    update: dict[str, Any] = {
        "model": config.model.model_copy(update={"initial": initial, "heads": "private"}),
        "local": config.local.model_copy(
            update={"steps": steps, "epochs": None, "drop_last": False}
        ),
        "evaluate": config.evaluate.model_copy(update={"train": False}),
        "strategy": config.strategy.model_copy(
            update={"compression": type(config.strategy.compression)()}
        ),
    }
    trainer = Trainer(problem, config.model_copy(update=update), torch.device("cpu"))
    if not way.transferred:
        return trainer, trainer.layout.flat(trainer.model.state_dict())
    return trainer, trainer.layout.flat(fit_initial(Path(path), tensors, trainer.layout))


def _tested(
    trainer: Trainer, backbone: Tensor, ids: np.ndarray, way: Adaptation, steps: int
) -> dict[tuple[str, int, str], float]:
    sums: dict[str, Tensor] = {}
    for part in adapt(trainer, backbone, ids, whole=way.whole):
        for name, values in part.statistics.items():
            split, _, measure = name.partition("/")
            if split == "test":
                sums[measure] = sums.get(measure, 0) + values.sum(0)
    metrics = {n: m for task in trainer.problem.tasks for n, m in task.measures.items()}
    return {(way.name, steps, name): metrics[name].value(total) for name, total in sums.items()}


def _gap(metric: Metric, better: float | None, worse: float | None) -> float | None:
    if better is None or worse is None:
        return None
    return better - worse if metric.higher_is_better else worse - better
