"""Adapting a backbone to clients that it was not trained for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedjoint.config.schema import CompressionConfig, Config
from fedjoint.data.reads import Reads, check_same_inputs
from fedjoint.errors import UserError
from fedjoint.initial import check_moved, check_shared, listed, reads_in_run, trained_apart
from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.problem import Build, Problem, build_problem, settled
from fedjoint.randomness import Purpose, derive
from fedjoint.runs.directory import RunDir
from fedjoint.runs.initial import UnfitError, fit_initial
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.whole import check_whole
from fedjoint.training.draws import Drawing
from fedjoint.training.method import LocalMethod
from fedjoint.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adaptation:
    """A way to make a model for new data.

    Attributes:
        name: for tables and plots.
        transferred: whether it starts from the backbone of the run, or from a fresh one.
        whole: whether the backbone is trained, or only what is on top of it.
        adapter: whether an adapter lies between backbone and head, see :class:`Adapter`.
    """

    name: str
    transferred: bool = True
    whole: bool = False
    adapter: bool = False


HEAD = Adaptation("head on the frozen backbone")
ADAPTER = Adaptation("adapter", adapter=True)
TUNED = Adaptation("fine-tuned", whole=True)
SCRATCH = Adaptation("from scratch", transferred=False, whole=True)


class Adapter(nn.Module):
    """Features plus a correction of a few numbers, zero at first: ``f + up(relu(down(f)))``.

    Paper: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019,
    https://arxiv.org/abs/1902.00751. Left out: adapters within the backbone.

    Args:
        features: of the backbone.
        width: of the correction.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return features ``[n, features]``."""
        return features + self.up(torch.relu(self.down(features)))


#: Factors on the learning rate from which validation data choose, alike for every way and size.
FACTORS = (0.25, 1.0, 4.0)

#: Width of an adapter.
WIDTH = 16


def with_adapters(problem: Problem) -> Problem:
    """Return ``problem`` with an adapter below the head of every task."""
    return replace(problem, tasks=[_adapted(task) for task in problem.tasks])


def _adapted(task: Task) -> Task:
    def head(features: int) -> nn.Module:
        return nn.Sequential(Adapter(features, WIDTH), task.make_head(features))

    return replace(task, head=head)


@dataclass(frozen=True)
class Learnt:
    """A run, and the backbone that it has learnt.

    Attributes:
        path: its directory.
        config: its configuration.
        records: of its rounds.
        tensors: of its newest backbone, by name.
        reads: what it reads; None: the run does not say.
    """

    path: Path
    config: Config
    records: list[RoundRecord]
    tensors: Mapping[str, Tensor]
    reads: Reads | None = None


def learnt(path: Path, problem: Problem | None, backbone: int | None = None) -> Learnt:
    """Return the run in ``path``.

    Args:
        path: its directory.
        problem: the run's own, where it did not come from the configuration.
        backbone: which one, where the strategy keeps several.

    Raises:
        UserError: there is no such run, it has no checkpoint, more than one architecture, no
            backbone in common, or no such backbone.
    """
    run = RunDir.open(path)
    run.described(problem)
    config = run.config()
    whole = check_whole(run, states=False)
    if whole.newest is None:
        raise UserError(f"{path}: the run has no checkpoint yet")
    if config.model.groups:
        raise _in_groups()
    check_shared(config, str(path))
    tensors = whole.newest.whole | whole.newest.backbone_of(path, backbone)
    known = reads_in_run(run)
    if known is None:
        log.warning(
            "%s does not say what its backbone reads, as older runs and deployed ones do not: see "
            "to it that inputs are the same, in the same order",
            path,
        )
    return Learnt(path, config, whole.records, tensors, known)


def problem_to_adapt(
    run: Learnt, config: Config, given: Problem | None, build: Build | None = None
) -> Problem:
    """Return the problem that is ``given``, or that ``config`` describes, with the run's inputs.

    Args:
        run: whose backbone reads them.
        config: what describes the problem.
        given: the problem, where the configuration does not describe it.
        build: see :func:`fedjoint.problem.build_problem`.

    Raises:
        UserError: it has groups, or inputs are not the run's; or as
            :func:`fedjoint.problem.build_problem`.
    """
    try:
        problem = settled(given, config) if given else build_problem(config, build=build)
    except UserError as error:
        if run.reads and str(error).startswith("unknown column"):
            columns = ", ".join(run.reads.columns)
            raise UserError(f"{run.path}: trained on the columns {columns}; {error}") from None
        raise
    if problem.groups:
        raise _in_groups()
    if run.reads:
        check_same_inputs(run.reads, problem.reads, str(run.path))
    return problem


def _in_groups() -> UserError:
    return UserError(
        "the run's clients are in groups with architectures of their own, and a transfer takes one "
        "backbone: take a run without groups"
    )


def settings_to_adapt(run: Learnt, config: Config) -> Config:
    """Return ``config`` such that whoever starts from ``run`` has a head and a model of its own."""
    strategy = config.strategy.model_copy(update={"compression": CompressionConfig()})
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"initial": str(run.path), "heads": "private"}),
            "local": config.local.model_copy(update={"drop_last": False}),
            "strategy": strategy,
        }
    )


def begin(run: Learnt, problem: Problem, config: Config, way: Adaptation) -> tuple[Trainer, Tensor]:
    """Return what adapts in one way, and the backbone ``[P]`` from which it starts.

    Of a fresh backbone, what never travels is what the run began with.

    Args:
        run: whose backbone is adapted.
        problem: of those who adapt it.
        config: see :func:`settings_to_adapt`.
        way: of adapting it.

    Raises:
        UserError: the run's backbone does not fit, was not trained, or only in part.
    """
    if way.adapter:
        problem = with_adapters(problem)
    if not way.transferred:
        model = config.model.model_copy(update={"initial": run.config.model.initial})
        config = config.model_copy(update={"model": model})
    try:
        trainer = Trainer(problem, config, torch.device("cpu"))
        if way.transferred:
            tensors = fit_initial(run.path, run.tensors, trainer.layout)
    except UnfitError as error:
        raise UserError(f"the run's backbone is not that of the model here: {error.why}") from None
    if way.transferred:
        _check_trained(run, trainer.model)
    else:
        tensors = trainer.model.state_dict()
    return trainer, trainer.layout.flat(tensors)


def _check_trained(run: Learnt, model: JointModel) -> None:
    """Make sure that the run trained its backbone, and all of it in common.

    Args:
        run: the run.
        model: with the run's backbone, its shared tensors as they were built.
    """
    if lacking := trained_apart(model, run.tensors):
        raise UserError(
            f"{run.path}: {listed(lacking)} of its backbone are its clients' own (model.share, or "
            "model.norm), so that nobody else has them: take a run that shares all that it trains"
        )
    if not run.config.model.initial:
        check_moved(run.tensors, model.state_dict(), str(run.path))


@dataclass(frozen=True)
class Adapted:
    """Some clients after adaptation.

    Attributes:
        clients: ``[n]`` int64 their ids.
        statistics: ``<split>/<task>`` -> ``[n, k]`` float64, see :class:`fedjoint.Metric`; NaN
            where a model's outputs are not finite.
    """

    clients: np.ndarray
    statistics: dict[str, Tensor]


def adapt(
    trainer: Trainer,
    backbone: Tensor,
    clients: np.ndarray,
    *,
    steps: int,
    whole: bool,
    factor: float = 1.0,
) -> Iterator[Adapted]:
    """Yield ``clients`` after ``steps`` of adaptation, those with the same tasks together.

    Each has a fresh head of every task, and starts from ``backbone``. The numbers depend on the
    seed and the client alone.

    Args:
        trainer: of the problem.
        backbone: ``[P]``.
        clients: ``[n]`` int64 ids.
        steps: optimiser steps of each.
        whole: train the backbone, too.
        factor: on the learning rate.
    """
    drawing = Drawing(trainer.device, scattered=trainer.traits.scattered)
    trainable: Callable[[str], bool] = lambda name: whole or name.startswith("heads.")  # noqa: E731
    for part in trainer.chunks(clients):
        ids = clients[part]
        cohort = trainer.cohort(ids, ids)

        def trained(cohort=cohort, ids=ids) -> tuple[Tensor, dict[str, Tensor]]:  # type: ignore[no-untyped-def]
            count = len(ids)
            fresh = trainer.fresh(cohort.tasks, LocalMethod(), backbone)
            private = {n: t.expand(count, *t.shape).clone() for n, t in fresh.items()}
            shared, rates = backbone.expand(count, -1).clone(), np.full(count, factor, np.float32)
            job = trainer.job(cohort, 1, backbone, {}, shared, private, rates)
            job.descend(steps=steps, trainable=trainable)
            return job.shared, job.private

        seeds = derive(trainer.config.seed, Purpose.TRAINING, 1, ids).tolist()
        statistics, finite = trainer.evaluate(cohort, *drawing.run(seeds, trained), train=False)
        for values in statistics.values():
            values[~finite] = torch.nan
        yield Adapted(ids, statistics)
