"""Averaging of updates of bounded length."""

import torch
from torch import Tensor

from fedjoint.server.updates import Updates
from strategies.fedavg import FedAvg
from strategies.options import number


class NormClip(FedAvg):
    """``step = server_lr * sum_i weights_i * min(1, norm / |update_i|) * update_i``.

    Args:
        norm: the greatest length of an update ``[P]``, above zero; longer ones are scaled down.
        server_lr: factor on the mean of the clipped updates.

    Raises:
        UserError: an option is out of range.

    Paper: Sun et al., "Can You Really Backdoor Federated Learning?", 2019,
    https://arxiv.org/abs/1911.07963
    """

    omits = "Gaussian noise"
    per_client = True

    def __init__(self, norm: float = 1.0, server_lr: float = 1.0) -> None:
        super().__init__(server_lr)
        self.norm = number("norm", norm, above=0)

    def merge(self, updates: Updates) -> Tensor:
        length = torch.linalg.vector_norm(updates.matrix, dim=1)
        return self.step(updates.combine(updates.weights * self.norm / length.clamp(self.norm)))
