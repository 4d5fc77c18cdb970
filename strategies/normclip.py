"""Averaging of updates of bounded length."""

import numpy as np
import torch
from torch import Tensor

from fedjoint.server.updates import Updates
from strategies.fedavg import FedAvg
from strategies.options import number


class NormClip(FedAvg):
    """``step = server_lr * sum_i weights_i * min(1, norm / |update_i|) * update_i``.

    Whatever a client sends, it moves the step by at most ``server_lr * weights_i * norm``. It is
    still a mean: there is no number of clients whose influence is removed.

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
        rows = updates.matrix.cpu().numpy()
        # In float64, which holds the square of any float32.
        square = np.einsum("ip,ip->i", rows, rows, dtype=np.float64)
        share = self.norm / torch.from_numpy(square).sqrt().clamp(self.norm)
        return self.step(updates.combine(updates.weights.cpu() * share))
