"""Accuracy: the share of examples, or of positions, whose class is predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.families import CLASSES
from fedjoint.model.metric import pooled, ratio
from fedjoint.model.positions import by_position


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    output, y = by_position(output, y)
    known = y >= 0
    return torch.stack([known, known & (output.argmax(-1) == y)], -1).sum(1).double()


accuracy = pooled("accuracy", _statistics, lambda s: ratio(s[:, 1], s[:, 0]), CLASSES)
