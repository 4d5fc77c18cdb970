"""Balanced accuracy: the mean over classes of the share of their examples that is predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.families import CLASSES
from fedjoint.model.metric import pooled
from fedjoint.model.metrics._confusion import confusion


def _balanced(s: Tensor) -> Tensor:
    hits, _, true = s[:, 2:].chunk(3, 1)
    return torch.where(true > 0, hits / true, torch.nan).nanmean(1)


balanced_accuracy = pooled("balanced accuracy", confusion, _balanced, CLASSES)
