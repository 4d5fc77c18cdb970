"""Huber loss: squared near zero, and linear beyond, averaged over the targets of an example."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.families import TARGETS
from fedjoint.model.loss import PositionLoss
from fedjoint.options import Positive


class Huber(PositionLoss):
    """As ``torch.nn.functional.huber_loss``, mean over targets.

    Args:
        delta: up to where it is squared, in the unit in which targets are learnt: see
            ``data.target_scale``.
    """

    kinds = TARGETS

    def __init__(self, delta: Positive = 1.0) -> None:
        self.delta = delta

    def at(self, output: Tensor, y: Tensor) -> Tensor:
        return F.huber_loss(output, y, reduction="none", delta=self.delta).mean(-1)
