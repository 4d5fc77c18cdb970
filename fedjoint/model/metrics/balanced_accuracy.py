"""Balanced accuracy: the mean over classes of the share of their examples that is predicted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.metric import pooled


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    known = y >= 0
    true = F.one_hot(y.clamp(min=0), output.shape[-1]).bool() & known[:, None]
    hits = true & (output.argmax(-1) == y)[:, None]
    return torch.cat([known[:, None], hits, true], -1).double()


def _balanced(s: Tensor) -> Tensor:
    hits, true = s[:, 1:].chunk(2, 1)
    return torch.where(true > 0, hits / true, torch.nan).nanmean(1)


balanced_accuracy = pooled("balanced accuracy", _statistics, _balanced)
