"""Binary cross-entropy, averaged over the labels of an example."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.families import LABELS
from fedjoint.model.loss import PositionLoss, Weights, numbers
from fedjoint.options import BelowOne


class BinaryCrossEntropy(PositionLoss):
    """As ``torch.nn.functional.binary_cross_entropy_with_logits``, mean over labels.

    Args:
        label_smoothing: share by which every label is drawn to one half.
        positive_weights: one for each label, which its loss is multiplied by where it is 1; by
            default all are one.
    """

    kinds = LABELS

    def __init__(
        self, label_smoothing: BelowOne = 0.0, positive_weights: Weights | None = None
    ) -> None:
        self.label_smoothing, self.positive_weights = label_smoothing, positive_weights

    def weights(self) -> Sequence[float] | None:
        return self.positive_weights

    def at(self, output: Tensor, y: Tensor) -> Tensor:
        if self.label_smoothing:
            y = y * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = self.positive_weights
        return F.binary_cross_entropy_with_logits(
            output,
            y,
            pos_weight=None if weights is None else numbers(weights, output),
            reduction="none",
        ).mean(-1)
