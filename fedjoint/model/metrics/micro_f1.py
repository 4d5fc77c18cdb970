"""Micro F1: twice the hits over twice the hits and all errors, of all labels together."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.families import LABELS
from fedjoint.model.metric import pooled, ratio


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    known = ~y.isnan().any(-1, keepdim=True)
    said, true = (output > 0) & known, (y > 0.5) & known
    counts = [known.sum(-1), (said & true).sum(-1), (said & ~true).sum(-1), (~said & true).sum(-1)]
    return torch.stack(counts, -1).double()


micro_f1 = pooled(
    "micro F1", _statistics, lambda s: ratio(2 * s[:, 1], 2 * s[:, 1] + s[:, 2] + s[:, 3]), LABELS
)
