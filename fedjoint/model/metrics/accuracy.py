"""Accuracy: the share of examples whose class is predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.metric import pooled, ratio


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    known = y >= 0
    return torch.stack([known, known & (output.argmax(-1) == y)], -1).double()


accuracy = pooled("accuracy", _statistics, lambda s: ratio(s[:, 1], s[:, 0]))
