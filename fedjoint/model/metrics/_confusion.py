"""The statistics of the metrics of hits, predictions and truths, by class or label."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.positions import by_position, known_positions, summed


def confusion(output: Tensor, y: Tensor) -> Tensor:
    """Return ``[n, 2 + 3 k]``: counts, and of each class or label hits, predicted and true."""
    output, y = by_position(output, y)
    there = known_positions(y)
    known = there[..., None]
    if y.is_floating_point():
        predicted, true = (output > 0) & known, (y > 0.5) & known
    else:
        classes = output.shape[-1]
        predicted = F.one_hot(output.argmax(-1), classes).bool() & known
        true = F.one_hot(y.clamp(min=0), classes).bool() & known
    return summed(there, predicted & true, predicted, true)
