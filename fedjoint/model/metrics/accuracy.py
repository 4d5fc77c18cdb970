"""Accuracy: the share of examples, or of positions, whose class is predicted."""

from __future__ import annotations

from torch import Tensor

from fedjoint.model.families import CLASSES
from fedjoint.model.metric import pooled, ratio
from fedjoint.model.positions import by_position, summed


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    output, y = by_position(output, y)
    known = y >= 0
    return summed(known, (known & (output.argmax(-1) == y))[..., None])


accuracy = pooled("accuracy", _statistics, lambda s: ratio(s[:, 2], s[:, 1]), CLASSES)
