"""Cross-entropy of classes: minus the logarithm of the probability of the right one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.families import CLASSES
from fedjoint.model.likelihood import negative_log
from fedjoint.model.loss import PositionLoss, Weights, numbers
from fedjoint.options import BelowOne


class CrossEntropy(PositionLoss):
    """As ``torch.nn.functional.cross_entropy`` with the reduction "none".

    Args:
        label_smoothing: share of the label that is spread over all classes evenly (Szegedy et al.,
            CVPR 2016, https://arxiv.org/abs/1512.00567).
        class_weights: one for each class, which its loss is multiplied by; by default all are one.
    """

    kinds = CLASSES

    def __init__(
        self, label_smoothing: BelowOne = 0.0, class_weights: Weights | None = None
    ) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def weights(self) -> Sequence[float] | None:
        return self.class_weights

    def summed(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if y.ndim > 1 or type(self) is not CrossEntropy:  # what extends it may have another loss
            return super().summed(output, y)
        weights = None if self.class_weights is None else numbers(self.class_weights, output)
        total = F.cross_entropy(
            output,
            y,
            weight=weights,
            ignore_index=-1,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return total, (y >= 0).sum()

    def __call__(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        plain = not self.label_smoothing and self.class_weights is None
        # The compiler makes one operation of many by itself, and stops at ours.
        plain = plain and type(self) is CrossEntropy and not torch.compiler.is_compiling()
        if y.ndim > 1 or not plain:
            return super().__call__(output, y)
        return negative_log(F.log_softmax(output, -1), y), y >= 0

    def at(self, output: Tensor, y: Tensor) -> Tensor:
        # As F.cross_entropy, which under vmap is put together from slower parts.
        logs = F.log_softmax(output, -1)
        if self.class_weights is not None:
            logs = logs * numbers(self.class_weights, output)
        chosen = logs.gather(-1, y[..., None]).squeeze(-1)
        if not self.label_smoothing:
            return -chosen
        return -(1 - self.label_smoothing) * chosen - self.label_smoothing * logs.mean(-1)
