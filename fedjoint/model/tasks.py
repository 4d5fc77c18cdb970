"""Tasks: what a head predicts, how it is trained, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedjoint.errors import UserError, choose
from fedjoint.model.features import Features
from fedjoint.model.kind import Kind
from fedjoint.model.kinds.dense_regression import DenseRegression
from fedjoint.model.kinds.detection import Detection
from fedjoint.model.kinds.language import Language
from fedjoint.model.kinds.multiclass import Multiclass
from fedjoint.model.kinds.multilabel import Multilabel
from fedjoint.model.kinds.preference import Preference
from fedjoint.model.kinds.regression import Regression
from fedjoint.model.kinds.segmentation import Segmentation
from fedjoint.model.kinds.tokens import Tokens
from fedjoint.model.loss import Loss, TaskLoss, make_loss, per_example
from fedjoint.model.metric import Metric, make_metric
from fedjoint.model.scale import TargetScale, checked_scale

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Multiclass(),
        Multilabel(),
        Regression(),
        Segmentation(),
        DenseRegression(),
        Detection(),
        Tokens(),
        Preference(),
        Language(),
    )
}


#: a registered name, or one with options: ``{"name": ..., "options": {...}}``
Named = str | Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One thing to predict from the backbone's features.

    Attributes:
        name: names the head, the labels and the metrics.
        kind: ``multiclass`` (labels ``[n]`` int64), ``multilabel`` (``[n, outputs]`` float32 in
            {0, 1}), ``regression`` (``[n, outputs]`` float32), ``segmentation`` (``[n, height,
            width]`` int64), ``dense_regression`` (``[n, outputs, height, width]`` float32),
            ``detection`` (``[n, boxes, 5]`` float32, see :mod:`fedjoint.model.boxes`), ``tokens``
            and ``language`` (``[n, length]`` int64), or ``preference`` (``[n]`` int64).
        outputs: classes, labels, targets, tokens of the vocabulary, or items to prefer one of.
        size: of labels that have one: ``(height, width)``, ``(length,)`` or ``(boxes,)``.
        head: builds the head from the backbone's features: the length of a vector, the shape of
            anything else, or a dict of these. By default it is a linear layer: on a vector; on the
            mean of a sequence ``[length, f]`` or a map ``[f, h, w]``; or at each of their places,
            of a map enlarged to ``size``.
        loss: per-example loss ``(output, y) -> (loss [n], known [n] bool)``, zero where a label
            is missing, or its registered name, with options ``{"name": "focal", "options":
            {"gamma": 1.0}}``; by default the kind's. An example counts once, by
            the mean over its positions with a label. It runs under ``torch.func.vmap``. A loss of
            ``torch.nn`` with a ``reduction`` is made one.
        metric: what is reported, or its name as that of a loss; by default the kind's. Of several
            in a list, the first decides which round is the best.
        scale: of a regression's targets in training; metrics and predictions have the targets' own
            units. ``own``: each client subtracts the mean of its training examples and divides by
            their deviation. ``(mean, deviation)``, each a number or one per output: all clients
            use these. ``none``: targets are learnt as they are. By default ``own``, and ``none``
            where the loss is a function of your own, or the head is shared or has nothing to learn.

    Raises:
        UserError: the kind, the loss, the metric or the scale is unknown, or not for such a task,
            ``outputs`` or ``size`` is none of the kind's, or PyTorch cannot have a head of that
            name.
    """

    name: str
    kind: str
    outputs: int
    head: Callable[[Any], nn.Module] | None = None
    loss: Loss | Named | None = None
    metric: Metric | Named | Sequence[Metric | Named] | None = None
    scale: TargetScale | None = None
    size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.kind not in KINDS:
            raise choose(f"kind of task {self.name!r}", self.kind, KINDS)
        self._check_form()
        if self.head is not None and not callable(self.head):
            what = type(self.head).__name__
            raise UserError(f"the head of task {self.name!r} is {what}, no function")
        object.__setattr__(self, "loss", self._checked_loss())
        object.__setattr__(self, "metric", self._checked_metrics())
        if self.scale is not None:
            form = KINDS[self.kind].scaled, self.outputs
            object.__setattr__(
                self, "scale", checked_scale(self.name, self.kind, *form, self.scale)
            )

    def _check_form(self) -> None:
        kind = KINDS[self.kind]
        if type(self.outputs) is not int or self.outputs < kind.least:
            what = f"outputs of {self.kind} task {self.name!r}"
            raise choose(what, str(self.outputs), [f"{kind.least} or more"])
        size: Sequence[Any] = self.size if isinstance(self.size, (tuple, list)) else (None,)
        if len(size) != len(kind.size) or not all(type(n) is int and n > 0 for n in size):
            wanted = f"({', '.join(kind.size)}{',' * (len(kind.size) == 1)})"
            raise UserError(
                f"task {self.name!r} is {self.kind}, and its size is {self.size!r}: give size = "
                f"{wanted}, whole numbers from 1"
                if kind.size
                else f"task {self.name!r} is {self.kind}, which has no size: leave it out"
            )
        object.__setattr__(self, "size", tuple(size))

    def _checked_loss(self) -> Loss | None:
        what, loss = f"the loss of task {self.name!r}", self.loss
        if isinstance(loss, (str, Mapping)):
            loss = make_loss(*_name_and_options(what, loss))
        if isinstance(loss, TaskLoss):
            try:
                loss.check(self.kind, self.outputs)
            except UserError as error:
                raise UserError(f"{what}: {error}") from None
        if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
            loss = per_example(loss)
        if loss is not None and not callable(loss):
            raise UserError(f"{what} is {type(loss).__name__}, no function")
        return loss

    def _checked_metrics(self) -> tuple[Metric, ...] | None:
        if self.metric is None:
            return None
        single = isinstance(self.metric, (str, Mapping, Metric))
        given: Any = [self.metric] if single else self.metric
        if not isinstance(given, Sequence) or not given:
            raise self._no_metric(given)
        what = f"the metric of task {self.name!r}"
        metrics = [
            make_metric(*_name_and_options(what, each))
            if isinstance(each, (str, Mapping))
            else each
            for each in given
        ]
        for metric in metrics:
            if not isinstance(metric, Metric):
                raise self._no_metric(metric)
            if metric.kinds and self.kind not in metric.kinds:
                what = f"kind of task {self.name!r} for the metric {metric.name!r}"
                raise choose(what, self.kind, metric.kinds)
        names = [metric.name for metric in metrics]
        if len(set(names)) < len(names):
            raise UserError(f"task {self.name!r} has a metric twice: {', '.join(names)}")
        return tuple(metrics)

    def _no_metric(self, found: object) -> UserError:
        return UserError(
            f"the metric of task {self.name!r} is {type(found).__name__}: give a "
            "fedjoint.Metric, a name of fedjoint list metrics, or a list of these"
        )

    def make_head(self, features: Features) -> nn.Module:
        """Build a fresh head for such features.

        Raises:
            UserError: the task has no head of its own, and none by default fits.
        """
        if self.head:
            return self.head(features)
        return self.form.head(features, self.outputs, self.size)

    @property
    def form(self) -> Kind:
        """What tasks of its kind have in common."""
        return KINDS[self.kind]

    @property
    def loss_fn(self) -> Loss:
        """The per-example loss in use."""
        return self.loss if callable(self.loss) else self.form.loss

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics in use, the one that decides first."""
        return self.metric if isinstance(self.metric, tuple) else (self.form.metric,)

    @property
    def measures(self) -> dict[str, Metric]:
        """What tables call its metrics -> these: the task's name, then ``task/metric``."""
        first, *others = self.metrics
        return {self.name: first} | {f"{self.name}/{other.name}": other for other in others}

    @property
    def metric_fn(self) -> Metric:
        """The metric that decides."""
        return self.metrics[0]

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape of one example's output; None: any length."""
        return self.form.output(self.outputs, self.size)

    @property
    def bare(self) -> Task:
        """The task without a head, a loss, metrics or a scale of its own."""
        return Task(self.name, self.kind, self.outputs, size=self.size)

    def missing(self, n: int) -> Tensor:
        """Return ``n`` missing labels of this task's shape and dtype."""
        shape = n, *self.form.label(self.outputs, self.size)
        if self.form.whole:
            return torch.full(shape, -1, dtype=torch.int64)
        return torch.full(shape, float("nan"))


def measures(tasks: Iterable[Task]) -> dict[str, Metric]:
    """Return what tables call the metrics of ``tasks`` -> these, see :attr:`Task.measures`."""
    return {name: metric for task in tasks for name, metric in task.measures.items()}


def _name_and_options(what: str, given: Named) -> tuple[str, Mapping[str, Any]]:
    if isinstance(given, str):
        return given, {}
    options = given.get("options", {})
    unknown = given.keys() - {"name", "options"}
    if unknown or not isinstance(given.get("name"), str) or not isinstance(options, Mapping):
        raise UserError(f"{what} is {dict(given)}: write {{'name': ..., 'options': {{...}}}}")
    return given["name"], options


def _check_name(name: object) -> None:
    """Refuse what cannot name a head, a column and an array."""
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise UserError(f"a task is named {name!r}: give it a name that can be printed")
    if "." in name or "/" in name or hasattr(nn.ModuleDict(), name):
        raise UserError(
            f"a task is named {name!r}, which PyTorch cannot have as the name of a head: leave "
            "out '.' and '/', and words such as 'type' and 'keys'"
        )
