"""Focal loss: cross-entropy in which what is easy counts little.

Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017,
https://arxiv.org/abs/1708.02002
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, where

from fedjoint.model.families import CLASSES, LABELS
from fedjoint.model.loss import PositionLoss, Weights, numbers
from fedjoint.options import NotNegative


class Focal(PositionLoss):
    """``-(1 - p)^gamma log p``, p the probability of the right class, or of each right label.

    The paper has labels alone, and for alpha a weight of the positive ones, other than of the
    negative: here it is a weight for each class or label.

    Args:
        gamma: 0 is cross-entropy.
        class_weights: one for each class or label, which its loss is multiplied by; by default all
            are one.
    """

    kinds = (*CLASSES, *LABELS)

    def __init__(self, gamma: NotNegative = 2.0, class_weights: Weights | None = None) -> None:
        self.gamma, self.class_weights = gamma, class_weights

    def weights(self) -> Sequence[float] | None:
        return self.class_weights

    def at(self, output: Tensor, y: Tensor) -> Tensor:
        if y.is_floating_point():
            logs = F.logsigmoid(where(y > 0.5, output, -output))
            return (self._weighted(output) * self._focused(logs)).mean(-1)
        logs = F.log_softmax(output, -1)
        weighted = self._weighted(output) * self._focused(logs)
        return weighted.gather(-1, y[..., None]).squeeze(-1)

    def _focused(self, logs: Tensor) -> Tensor:
        # Where p is one to rounding, the power of zero has no slope that is a number.
        return -((1 - logs.exp()).clamp(min=1e-12) ** self.gamma) * logs

    def _weighted(self, output: Tensor) -> Tensor | float:
        return 1.0 if self.class_weights is None else numbers(self.class_weights, output)
