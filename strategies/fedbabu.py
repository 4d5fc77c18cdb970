"""FedBABU: FedAvg of backbones under heads that stay as they were made.

The clients' half is :mod:`fedjoint.clients.babu`.
"""

from __future__ import annotations

from .fedavg import FedAvg


class FedBABU(FedAvg):
    """Clients train the backbone under heads that stay as they were made, and tune them last.

    Args:
        server_lr: factor on the mean update.

    Paper: Oh, Kim and Yun, "FedBABU: Toward Enhanced Representation for Federated Image
    Classification", ICLR 2022, https://arxiv.org/abs/2106.06042
    """

    method = "babu"
