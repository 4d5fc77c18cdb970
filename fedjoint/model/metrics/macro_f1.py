"""Macro F1: the mean over classes, or labels, of F1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.metric import pooled


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    if y.is_floating_point():
        known = ~y.isnan().any(-1, keepdim=True)
        predicted, true = (output > 0) & known, (y > 0.5) & known
    else:
        known = (y >= 0)[:, None]
        classes = output.shape[-1]
        predicted = F.one_hot(output.argmax(-1), classes).bool() & known
        true = F.one_hot(y.clamp(min=0), classes).bool() & known
    return torch.cat([known, predicted & true, predicted, true], -1).double()


def _macro_f1(s: Tensor) -> Tensor:
    count, rest = s[:, 0], s[:, 1:]
    hits, predicted, true = rest.chunk(3, 1)
    # A class that is neither predicted nor there has no F1; one that is only one of them has zero.
    each = torch.where(predicted + true > 0, 2 * hits / (predicted + true), torch.nan)
    return torch.where(count > 0, each.nanmean(1), torch.nan)


macro_f1 = pooled("macro F1", _statistics, _macro_f1)
