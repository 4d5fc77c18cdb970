"""Expected calibration error: by how much confidence and accuracy differ; lower is better.

Of 15 bins of the probability of the predicted class, the mean over examples, or positions, of the
difference.

Paper: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
https://arxiv.org/abs/1706.04599
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.families import CLASSES
from fedjoint.model.metric import pooled
from fedjoint.model.positions import by_position, summed

BINS = 15


def _statistics(output: Tensor, y: Tensor) -> Tensor:
    output, y = by_position(output, y)
    known = y >= 0
    confidence, predicted = output.double().softmax(-1).max(-1)
    confidence = confidence.nan_to_num()  # what is undefined has no label
    # Bins are open below and closed above.
    place = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    bins = F.one_hot(place, BINS) * known[..., None]
    hits = bins * (predicted == y)[..., None]
    return summed(known, bins * confidence[..., None], hits)


def _error(s: Tensor) -> Tensor:
    confidence, hits = s[:, 2:].chunk(2, 1)
    count = s[:, 1]
    return torch.where(count > 0, (confidence - hits).abs().sum(1) / count, torch.nan)


calibration_error = pooled(
    "calibration error", _statistics, _error, CLASSES, higher_is_better=False
)
