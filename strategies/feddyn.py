"""FedDyn: dynamic regularisation, so that local and global optima agree.

The clients' half is :mod:`fedjoint.clients.feddyn`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.options import Positive, Whole
from fedjoint.server.updates import Updates

from ._population import OverPopulation


class FedDyn(OverPopulation):
    """Federated learning with dynamic regularisation.

    Clients minimise ``loss - <g_i, backbone> + alpha / 2 * |backbone - received|^2`` and keep
    g_i. The server keeps ``h <- h - alpha / population * sum_i update_i`` and takes
    ``step = server_lr * (mean of the updates - h / alpha)``, all ``[P]``. As in the paper,
    every client counts the same in both sums, whatever its weight.

    The state is ``travelled``, ``-population / alpha * h`` of shape ``[P]``: the sum of all
    updates so far, so that h stays right when others join.

    Args:
        alpha: strength of the regularisation, above zero.
        population: number of clients; 0 counts those that the run knows of.
        server_lr: factor on the step; the paper's is 1.

    Paper: Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021,
    https://arxiv.org/abs/2111.04263
    """

    method = "feddyn"

    def __init__(
        self, alpha: Positive = 0.01, population: Whole = 0, server_lr: Positive = 1.0
    ) -> None:
        super().__init__(population, server_lr)
        self.method_options["alpha"] = alpha

    def merge(self, updates: Updates) -> Tensor:
        self.see(updates)
        total = updates.matrix.sum(0)
        self.state["travelled"] = self.state.get("travelled", torch.zeros_like(total)) + total
        return self.server_lr * (total / len(updates) + self.state["travelled"] / self.population)
