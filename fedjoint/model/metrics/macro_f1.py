"""Macro F1: the mean over classes, or labels, of F1."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.families import CLASSES, LABELS
from fedjoint.model.metric import pooled
from fedjoint.model.metrics._confusion import confusion


def _macro_f1(s: Tensor) -> Tensor:
    count, rest = s[:, 0], s[:, 2:]
    hits, predicted, true = rest.chunk(3, 1)
    # A class that is neither predicted nor there has no F1; one that is only one of them has zero.
    each = torch.where(predicted + true > 0, 2 * hits / (predicted + true), torch.nan)
    return torch.where(count > 0, each.nanmean(1), torch.nan)


macro_f1 = pooled("macro F1", confusion, _macro_f1, (*CLASSES, *LABELS))
