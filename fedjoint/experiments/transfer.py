"""A new task on the backbone of a run: learning curves, against training from scratch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.load import check, override
from fedjoint.config.schema import BalanceConfig, Config
from fedjoint.data.base import Client, Examples
from fedjoint.data.build import make_source
from fedjoint.data.pool import pooled
from fedjoint.errors import UserError, choose
from fedjoint.experiments.adapt import (
    ADAPTER,
    FACTORS,
    HEAD,
    SCRATCH,
    TUNED,
    Adaptation,
    Adapted,
    Learnt,
    adapt,
    begin,
    learnt,
    problem_to_adapt,
    settings_to_adapt,
)
from fedjoint.experiments.arms import mean, sign
from fedjoint.experiments.intervals import Interval, columns, interval
from fedjoint.experiments.new_task import built_for
from fedjoint.experiments.subsets import SomeTasks, of_tasks
from fedjoint.model.positions import is_known
from fedjoint.model.tasks import Task
from fedjoint.model.tree import cat
from fedjoint.problem import Problem
from fedjoint.randomness import Purpose, derive
from fedjoint.training.trainer import Trainer

#: The ways that are compared.
WAYS = (HEAD, ADAPTER, TUNED, SCRATCH)

#: Sizes of the training set where none are given, as far as there are examples; and all of them.
SIZES = (10, 30, 100, 300, 1000, 3000)


@dataclass(frozen=True)
class Point:
    """A way of learning a task from so many examples.

    Attributes:
        way: which one.
        size: training examples.
        factor: on the learning rate, as validation data chose it.
        test: the test metric of every repeat.
    """

    way: Adaptation
    size: int
    factor: float
    test: list[float]

    @property
    def interval(self) -> Interval:
        """The mean over repeats and its 95 % interval."""
        return interval(self.test)


@dataclass(frozen=True)
class Transfer:
    """The learning curves of a task.

    Attributes:
        task: the task.
        points: of every way and size.
    """

    task: Task
    points: list[Point]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per point."""
        return [
            {"task": self.task.name, "metric": self.task.metric_fn.name, "way": point.way.name}
            | {"examples": point.size, "repeats": len(point.test), "rate factor": point.factor}
            | columns("test", point.interval)
            for point in self.points
        ]


class Subsets:
    """Learners of one task, each with some of an owner's examples; client ``s * repeats + r``.

    Repeat r has the first examples of one random order whatever the size, so that a larger
    training set holds the smaller. It validates on no more examples than it trains on, and is
    tested on all of the owner's test examples.

    Args:
        owner: of the examples.
        task: its task.
        sizes: of the training sets.
        repeats: of each.
        seed: of the orders.
    """

    def __init__(
        self, owner: Client, task: str, sizes: Sequence[int], repeats: int, seed: int
    ) -> None:
        self.task_names: tuple[str, ...] = (task,)
        self.sizes = np.repeat(np.array(sizes, np.int64), repeats)
        self.tasks = np.ones((len(self.sizes), 1), bool)
        self._owner, self._repeats, self._seed = owner, repeats, seed

    def client(self, index: int) -> Client:
        """Return the examples of learner ``index``."""
        size, repeat = int(self.sizes[index]), index % self._repeats
        train, valid = (
            part.take(self._order(split, repeat, len(part))[:size])
            for split, part in enumerate((self._owner.train, self._owner.valid))
        )
        return Client(train, valid, self._owner.test)

    def _order(self, split: int, repeat: int, count: int) -> Tensor:
        drawn = derive(self._seed, Purpose.TRANSFER, split, repeat, np.arange(count))
        return torch.from_numpy(np.argsort(drawn, kind="stable"))


def transfer(
    path: str | Path,
    task: str,
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 5,
    steps: int = 200,
    settings: Iterable[str] = (),
    backbone: int | None = None,
    problem: Problem | None = None,
) -> Transfer:
    """Learn a task that a run did not train, on its backbone and from scratch.

    The task's examples are those of all clients together. Every way takes the same steps with the
    run's own batch size and optimiser, from sets of examples that are the same for all.

    Args:
        path: the run directory.
        task: name of the task.
        sizes: of the training sets; by default :data:`SIZES`, as far as there are examples, and
            all examples.
        repeats: training sets of each size, drawn by the run's seed.
        steps: optimiser steps.
        settings: of the data in which the task is, as ``key=value``; by default the run's own
            data with the task on every client.
        backbone: which one of the run, from 0, where its strategy keeps several.
        problem: what the task is part of, on the run's backbone, where it does not come from the
            configuration.

    Raises:
        UserError: there is no such run or task, the run has trained it, or a size is wrong.
    """
    run = learnt(Path(path), problem, backbone)
    if any(task in record.loss for record in run.records):
        raise UserError(
            f"the run has trained {task!r}, so it is not new: take a run without it "
            "(data.task_mix), or --unseen for new clients"
        )
    config = _config(run, task, list(settings))
    problem = problem_to_adapt(run, config, problem, built_for(task))
    own = next((known for known in problem.tasks if known.name == task), None)
    if own is None:
        raise choose("task", task, [known.name for known in problem.tasks])
    owner = _owner(problem, own)
    chosen = _sizes(sizes, len(owner.train))
    data = Subsets(owner, task, chosen, repeats, config.seed)
    alone = replace(problem, tasks=[own], data=data, central=None)
    points = []
    vector = _makes_vectors(alone, config)
    for way in (way for way in WAYS if vector or not way.adapter):
        trainer, start = begin(run, alone, config, way)
        for at, size in enumerate(chosen):
            learners = np.arange(at * repeats, (at + 1) * repeats)
            points.append(_best(trainer, start, learners, way, size, steps))
    return Transfer(own, points)


def _makes_vectors(problem: Problem, config: Config) -> bool:
    """Say whether the features are vectors, of which an adapter makes others."""
    fresh = config.model_copy(update={"model": config.model.model_copy(update={"initial": None})})
    with torch.no_grad():
        features = problem.model(fresh).eval().backbone(cat([problem.example] * 2))
    return isinstance(features, Tensor) and features.ndim == 2


def _best(
    trainer: Trainer, backbone: Tensor, learners: np.ndarray, way: Adaptation, size: int, steps: int
) -> Point:
    """Return a way's result with the learning rate that validation data choose."""
    (task,) = trainer.problem.tasks
    found = []
    for factor in FACTORS:
        made = adapt(trainer, backbone, learners, steps=steps, whole=way.whole, factor=factor)
        adapted = list(made)
        valid, test = (_metric(adapted, split, task) for split in ("valid", "test"))
        # Without validation data, or where it diverges in some repeat, a factor has no score.
        known = all(map(math.isfinite, valid))
        score = sign(task) * mean(valid) if known else -math.inf
        found.append(((score, factor == 1), factor, test))
    _, factor, test = max(found, key=lambda each: each[0])
    return Point(way, size, factor, test)


def _metric(adapted: Sequence[Adapted], split: str, task: Task) -> list[float]:
    return [
        value
        for part in adapted
        for value in task.metric_fn.each(part.statistics[f"{split}/{task.name}"]).tolist()
    ]


def _config(run: Learnt, task: str, settings: Sequence[str]) -> Config:
    """Return the settings with which the task is learnt."""
    tree = run.config.model_dump()
    data = tree["data"] | {"task_mix": [[task]], "unseen_clients": 0}
    if data["partition"] == "one_task":
        data["partition"] = "iid"
    for setting in settings:
        if not setting.startswith("data."):
            raise UserError(f"--set {setting}: a transfer takes settings of data alone")
    made = _as_trained(run, task, check(override(tree | {"data": data}, settings)))
    made = settings_to_adapt(run, of_tasks(made, [task]))
    local = made.local.model_copy(update={"lr_scales": []})
    return made.model_copy(update={"local": local, "balance": BalanceConfig()})


def _as_trained(run: Learnt, task: str, config: Config) -> Config:
    """Return settings with which the data source reads what the run's backbone was trained on.

    Raises:
        UserError: that is the new task itself.
    """
    if run.reads is None or config.problem is not None:
        return config
    if task in run.reads.columns and "language" not in _kinds(config):
        raise UserError(
            f"{run.path}: its backbone was trained on {task!r} as an input, so it is no new task "
            "to it: take a run of data without that column (data.source.options.drop)"
        )
    inputs = run.reads.parts.get("")
    if inputs is None:
        return config
    source = config.data.source
    own = make_source(source).options_to_read(inputs, source.options.keys())
    source = source.model_copy(update={"options": source.options | own})
    return config.model_copy(update={"data": config.data.model_copy(update={"source": source})})


def _kinds(config: Config) -> list[str]:
    """Return the kinds of the tasks that a data source's options name."""
    targets = config.data.source.options.get("targets")
    return list(targets.values()) if isinstance(targets, dict) else []


def _owner(problem: Problem, task: Task) -> Client:
    """Return everyone's examples with a label of ``task``."""
    client = pooled(SomeTasks(problem.data, [task.name]), [task]).client(0)
    parts = (client.train, client.valid, client.test)
    owner = Client(*(_labelled(part, task.name) for part in parts))
    for name, part in (("training", owner.train), ("test", owner.test)):
        if not len(part):
            raise UserError(f"task {task.name!r} has no {name} examples: give data that have some")
    return owner


def _labelled(examples: Examples, task: str) -> Examples:
    return examples.take(is_known(examples.y[task]).nonzero().squeeze(1))


def _sizes(sizes: Sequence[int] | None, most: int) -> list[int]:
    if sizes is None:
        return [*(size for size in SIZES if size < most), most]
    for size in sizes:
        if not 1 <= size <= most:
            raise UserError(
                f"--sizes {size}: the task has {most} training examples; give 1 to that"
            )
    return sorted(set(sizes))
