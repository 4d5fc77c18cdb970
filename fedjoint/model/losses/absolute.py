"""Absolute error, averaged over the targets of an example."""

from __future__ import annotations

from torch import Tensor

from fedjoint.model.families import TARGETS
from fedjoint.model.loss import PositionLoss


class Absolute(PositionLoss):
    """The size of the difference, mean over targets: outliers pull no more than others."""

    kinds = TARGETS

    def at(self, output: Tensor, y: Tensor) -> Tensor:
        return (output - y).abs().mean(-1)
