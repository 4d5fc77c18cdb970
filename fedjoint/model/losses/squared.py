"""Squared error, averaged over the targets of an example."""

from __future__ import annotations

from torch import Tensor

from fedjoint.model.families import TARGETS
from fedjoint.model.loss import PositionLoss


class Squared(PositionLoss):
    """The square of the difference, mean over targets."""

    kinds = TARGETS

    def at(self, output: Tensor, y: Tensor) -> Tensor:
        return ((output - y) ** 2).mean(-1)
