"""Tasks: what a head predicts, how it is trained, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedjoint.errors import UserError, choose
from fedjoint.model.losses import (
    Loss,
    multiclass_loss,
    multilabel_loss,
    per_example,
    regression_loss,
)
from fedjoint.model.metric import Metric, make_metric
from fedjoint.model.metrics.accuracy import accuracy
from fedjoint.model.metrics.micro_f1 import micro_f1
from fedjoint.model.metrics.r2 import r2
from fedjoint.model.scale import TargetScale, checked_scale

# kind -> default loss, default metric
KINDS: dict[str, tuple[Loss, Metric]] = {
    "multiclass": (multiclass_loss, accuracy),
    "multilabel": (multilabel_loss, micro_f1),
    "regression": (regression_loss, r2),
}


@dataclass(frozen=True)
class Task:
    """One thing to predict from the backbone's features.

    Attributes:
        name: names the head, the labels and the metrics.
        kind: ``multiclass`` (labels ``[n]`` int64), ``multilabel`` (``[n, outputs]`` float32 in
            {0, 1}) or ``regression`` (``[n, outputs]`` float32). Text tasks are one of these:
            what differs is the backbone.
        outputs: classes, labels or targets.
        head: builds the head from the number of features; by default one linear layer.
        loss: per-example loss ``(output, y) -> (loss [n], known [n] bool)``, zero where a label
            is missing; by default the kind's. It runs under ``torch.func.vmap``. A loss of
            ``torch.nn`` with a ``reduction`` is made one.
        metric: what is reported, or its registered name; by default accuracy, micro F1 or R2.
        scale: of a regression's targets in training; metrics and predictions have the targets' own
            units. ``own``: each client subtracts the mean of its training examples and divides by
            their deviation. ``(mean, deviation)``, each a number or one per output: all clients
            use these. ``none``: targets are learnt as they are. By default ``own``, and ``none``
            where the loss is not the kind's, or the head is shared or has nothing to learn.

    Raises:
        UserError: the kind, the metric or the scale is unknown, ``outputs`` is too small, PyTorch
            cannot have a head of that name, or the loss or the metric is none.
    """

    name: str
    kind: str
    outputs: int
    head: Callable[[int], nn.Module] | None = None
    loss: Loss | None = None
    metric: Metric | str | None = None
    scale: TargetScale | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.kind not in KINDS:
            raise choose(f"kind of task {self.name!r}", self.kind, KINDS)
        least = 2 if self.kind == "multiclass" else 1
        if type(self.outputs) is not int or self.outputs < least:
            raise choose(
                f"outputs of {self.kind} task {self.name!r}",
                str(self.outputs),
                [f"{least} or more"],
            )
        for what in ("head", "loss"):
            given = getattr(self, what)
            if given is not None and not callable(given):
                raise UserError(
                    f"the {what} of task {self.name!r} is {type(given).__name__}, no function"
                )
        if isinstance(self.loss, nn.Module) and hasattr(self.loss, "reduction"):
            object.__setattr__(self, "loss", per_example(self.loss))
        if isinstance(self.metric, str):
            object.__setattr__(self, "metric", make_metric(self.metric, {}))
        if self.metric is not None and not isinstance(self.metric, Metric):
            raise UserError(
                f"the metric of task {self.name!r} is {type(self.metric).__name__}: give a "
                "fedjoint.Metric, or a name of fedjoint list metrics"
            )
        if self.scale is not None:
            object.__setattr__(
                self, "scale", checked_scale(self.name, self.kind, self.outputs, self.scale)
            )

    def make_head(self, features: int) -> nn.Module:
        """Build a fresh head for ``features`` inputs."""
        return self.head(features) if self.head else nn.Linear(features, self.outputs)

    @property
    def loss_fn(self) -> Loss:
        """The per-example loss in use."""
        return self.loss or KINDS[self.kind][0]

    @property
    def metric_fn(self) -> Metric:
        """The metric in use."""
        return self.metric if isinstance(self.metric, Metric) else KINDS[self.kind][1]

    def missing(self, n: int) -> Tensor:
        """Return ``n`` missing labels of this task's shape and dtype."""
        if self.kind == "multiclass":
            return torch.full((n,), -1, dtype=torch.int64)
        return torch.full((n, self.outputs), float("nan"))


def _check_name(name: object) -> None:
    """Refuse what cannot name a head, a column and an array."""
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise UserError(f"a task is named {name!r}: give it a name that can be printed")
    if "." in name or "/" in name or hasattr(nn.ModuleDict(), name):
        raise UserError(
            f"a task is named {name!r}, which PyTorch cannot have as the name of a head: leave "
            "out '.' and '/', and words such as 'type' and 'keys'"
        )
