"""Adapting a backbone to clients that it was not trained for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fedjoint.model.tasks import Task
from fedjoint.problem import Problem
from fedjoint.randomness import Purpose, derive
from fedjoint.training.draws import Drawing
from fedjoint.training.method import LocalMethod
from fedjoint.training.trainer import Trainer


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
    trainer: Trainer, backbone: Tensor, clients: np.ndarray, *, whole: bool, factor: float = 1.0
) -> Iterator[Adapted]:
    """Yield ``clients`` after ``local.steps`` of adaptation, those with the same tasks together.

    Each has a fresh head of every task, and starts from ``backbone``. The numbers depend on the
    seed and the client alone.

    Args:
        trainer: of the problem.
        backbone: ``[P]``.
        clients: ``[n]`` int64 ids.
        whole: train the backbone, too.
        factor: on the learning rate.
    """
    drawing = Drawing(trainer.device)
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
            job.descend(trainable=trainable)
            return job.shared, job.private

        seeds = derive(trainer.config.seed, Purpose.TRAINING, 1, ids).tolist()
        statistics, finite = trainer.evaluate(cohort, *drawing.run(seeds, trained))
        for values in statistics.values():
            values[~finite] = torch.nan
        yield Adapted(ids, statistics)
