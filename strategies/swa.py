"""SWA: the mean of the backbones of the last rounds."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedjoint.options import Positive
from fedjoint.server.strategy import circumstances
from fedjoint.server.updates import Updates

from .fedavg import FedAvg

Begin = Annotated[float, Field(ge=0, lt=1)]


class SWA(FedAvg):
    """FedAvg that ends in the mean of its backbones: stochastic weight averaging on the server.

    Rounds are those of FedAvg, and the backbones after those beyond ``begin`` of the run are
    averaged. The step of the last round leads to that mean. The state is ``ahead`` ``[P]``, the
    mean less the newest backbone, and ``count`` of the backbones in it.

    Args:
        server_lr: factor on the mean update, above zero.
        begin: share of the rounds that are not averaged, in [0, 1).

    Papers: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    UAI 2018, https://arxiv.org/abs/1803.05407; on the server: Caldarola, Caputo and Ciccone,
    "Improving Generalization in Federated Learning by Seeking Flat Minima", ECCV 2022,
    https://arxiv.org/abs/2203.11834
    """

    omits = "the cyclical learning rate"

    def __init__(self, server_lr: Positive = 1.0, begin: Begin = 0.75) -> None:
        super().__init__(server_lr)
        self.begin = begin

    def merge(self, updates: Updates) -> Tensor:
        step = super().merge(updates)
        known = circumstances(self)
        rounds = known.config.rounds if known else updates.round
        if updates.round <= self.begin * rounds:
            return step
        count = self.state.get("count", torch.zeros(()))
        ahead = self.state.get("ahead", torch.zeros_like(step))
        # Relative to the backbone, whose rounding would bury short steps.
        ahead = (ahead - step) * count / (count + 1)
        if updates.round == rounds:
            self.state.clear()  # a run that gets more rounds averages anew
            return step + ahead
        self.state |= {"count": count + 1, "ahead": ahead}
        return step
