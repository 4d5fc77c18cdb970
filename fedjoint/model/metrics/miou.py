"""mIoU: the mean over classes of the intersection of predicted and true places over their union.

A class that is neither predicted nor there has none. Of all places of all examples together, as for
PASCAL VOC (Everingham et al., IJCV 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.families import CLASSES, LABELS
from fedjoint.model.metric import pooled
from fedjoint.model.metrics._confusion import confusion


def _miou(s: Tensor) -> Tensor:
    hits, predicted, true = s[:, 2:].chunk(3, 1)
    union = predicted + true - hits
    return torch.where(union > 0, hits / union, torch.nan).nanmean(1)


miou = pooled("mIoU", confusion, _miou, (*CLASSES, *LABELS))
