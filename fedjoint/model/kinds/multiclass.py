"""One of several classes: labels ``[n]``."""

from __future__ import annotations

from torch import Tensor, nn

from fedjoint.model.features import Features, Shape
from fedjoint.model.heads import MeanHead, default_head
from fedjoint.model.kind import Kind, Size
from fedjoint.model.losses.cross_entropy import CrossEntropy
from fedjoint.model.metrics.accuracy import accuracy
from fedjoint.model.positions import frequencies


def vector_head(features: Features, outputs: int) -> nn.Module:
    """Return a linear layer on a vector, or on the mean of a sequence or a map."""

    def make(shape: Shape) -> nn.Module:
        if isinstance(shape, int):
            return nn.Linear(shape, outputs)
        return MeanHead(shape[1] if len(shape) == 2 else shape[0], outputs)

    return default_head(features, (1, 2, 3), make)


class Multiclass(Kind):
    """Labels ``[n]`` int64, outputs ``[n, classes]``."""

    name = "multiclass"
    loss = CrossEntropy()
    metric = accuracy

    def output(self, outputs: int, size: Size) -> tuple[int | None, ...]:
        return (outputs,)

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        return vector_head(features, outputs)

    def constant(self, y: Tensor, outputs: int, size: Size) -> Tensor:
        return frequencies(y, outputs)[None]

    def predicted(self, output: Tensor) -> dict[str, Tensor]:
        sure, best = output.softmax(-1).max(-1)
        return {"": best, "probability": sure}

    def strata(self, y: Tensor) -> Tensor:
        return y if y.ndim == 1 else super().strata(y)
