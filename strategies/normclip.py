"""Averaging of updates of bounded length."""

import numpy as np
import torch
from torch import Tensor

from fedjoint.options import Positive
from fedjoint.server.updates import Updates

from .fedavg import FedAvg


class NormClip(FedAvg):
    """``step = server_lr * sum_i weights_i * min(1, norm / |update_i|) * update_i``.

    Whatever a client sends, it moves the step by at most ``server_lr * weights_i * norm``. It is
    still a mean: there is no number of clients whose influence is removed.

    Args:
        norm: the greatest length of an update ``[P]``, above zero; longer ones are scaled down.
        server_lr: factor on the mean of the clipped updates.

    Paper: Sun et al., "Can You Really Backdoor Federated Learning?", 2019,
    https://arxiv.org/abs/1911.07963
    """

    omits = "Gaussian noise"
    robust = True
    per_client = True

    def __init__(self, norm: Positive = 1.0, server_lr: Positive = 1.0) -> None:
        super().__init__(server_lr)
        self.norm = norm

    def merge(self, updates: Updates) -> Tensor:
        length = torch.linalg.vector_norm(updates.matrix, dim=1)
        if not length.isfinite().all():  # squares of what was sent are too large for float32
            rows = updates.matrix.cpu().numpy()
            square = np.einsum("ip,ip->i", rows, rows, dtype=np.float64)
            length = torch.from_numpy(square).sqrt().to(updates.weights.device)
        return self.step(updates.combine(updates.weights * self.norm / length.clamp(self.norm)))
