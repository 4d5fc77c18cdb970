"""FedAvgM: server momentum."""

import torch
from torch import Tensor

from fedjoint.options import BelowOne, Positive

from .fedavg import FedAvg


class FedAvgM(FedAvg):
    """Averaging with server momentum: ``m <- momentum * m + mean``, ``step = server_lr * m``.

    The state is ``momentum``, m of shape ``[P]``, zero at first.

    Args:
        server_lr: length of the step.
        momentum: share of the last m that is kept, in [0, 1).

    Paper: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", 2019, https://arxiv.org/abs/1909.06335
    """

    def __init__(self, server_lr: Positive = 1.0, momentum: BelowOne = 0.9) -> None:
        super().__init__(server_lr)
        self.momentum = momentum

    def step(self, mean: Tensor) -> Tensor:
        last = self.state.get("momentum", torch.zeros_like(mean))
        self.state["momentum"] = self.momentum * last + mean
        return self.server_lr * self.state["momentum"]
