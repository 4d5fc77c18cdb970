"""Cross-entropy: minus the mean log-probability of the right class; lower is better."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.families import CLASSES
from fedjoint.model.metric import pooled, ratio
from fedjoint.model.positions import by_position, summed


def log_losses(output: Tensor, y: Tensor) -> Tensor:
    """Return ``[n, 3]``: counts, and the sum of minus the log-probabilities."""
    output, y = by_position(output, y)
    known = y >= 0
    chosen = F.log_softmax(output.double(), -1).gather(-1, y.clamp(min=0)[..., None])[..., 0]
    return summed(known, torch.where(known, -chosen, 0)[..., None])


cross_entropy = pooled(
    "cross-entropy", log_losses, lambda s: ratio(s[:, 2], s[:, 1]), CLASSES, higher_is_better=False
)
