"""Tasks: what a head predicts, how it is trained, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedjoint.errors import choose
from fedjoint.model.metric import Metric, make_metric
from fedjoint.model.metrics.accuracy import accuracy
from fedjoint.model.metrics.micro_f1 import micro_f1
from fedjoint.model.metrics.r2 import r2


def multiclass_loss(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy per example: ``[n, classes]``, ``[n]`` -> loss ``[n]``, known ``[n]``."""
    known = y >= 0
    # As F.cross_entropy, which under vmap is put together from slower parts.
    chosen = F.log_softmax(output, 1).gather(1, y.clamp(min=0)[:, None]).squeeze(1)
    return torch.where(known, -chosen, 0), known


def multilabel_loss(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy per example, averaged over the labels ``[n, labels]``."""
    known = ~y.isnan().any(-1)
    loss = F.binary_cross_entropy_with_logits(output, y.nan_to_num(), reduction="none").mean(-1)
    return torch.where(known, loss, 0), known


def regression_loss(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error per example, averaged over the targets ``[n, outputs]``."""
    known = ~y.isnan().any(-1)
    return torch.where(known, ((output - y.nan_to_num()) ** 2).mean(-1), 0), known


Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

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
            is missing; by default the kind's. It runs under ``torch.func.vmap``.
        metric: what is reported, or its registered name; by default accuracy, micro F1 or R2.

    Raises:
        UserError: the kind or the metric is unknown, or ``outputs`` is too small.
    """

    name: str
    kind: str
    outputs: int
    head: Callable[[int], nn.Module] | None = None
    loss: Loss | None = None
    metric: Metric | str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise choose(f"kind of task {self.name!r}", self.kind, KINDS)
        least = 2 if self.kind == "multiclass" else 1
        if self.outputs < least:
            raise choose(
                f"outputs of {self.kind} task {self.name!r}",
                str(self.outputs),
                [f"{least} or more"],
            )

        if isinstance(self.metric, str):
            object.__setattr__(self, "metric", make_metric(self.metric, {}))

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
