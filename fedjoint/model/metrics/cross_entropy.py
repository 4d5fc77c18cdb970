"""Cross-entropy: minus the mean log-probability of the right class; lower is better."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.metric import pooled, ratio


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    known = y >= 0
    chosen = F.log_softmax(output.double(), -1).gather(-1, y.clamp(min=0)[:, None])[:, 0]
    return torch.stack([known.double(), torch.where(known, -chosen, 0)], -1)


cross_entropy = pooled(
    "cross-entropy", _statistics, lambda s: ratio(s[:, 1], s[:, 0]), higher_is_better=False
)
