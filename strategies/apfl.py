"""APFL: FedAvg, mixed with a backbone of one's own.

The clients' half is :mod:`fedjoint.clients.apfl`.
"""

from __future__ import annotations

from fedjoint.options import Positive, UpToOne

from .fedavg import FedAvg


class APFL(FedAvg):
    """Clients predict with ``alpha * own backbone + (1 - alpha) * shared backbone``.

    Args:
        alpha: the share of the own backbone, in [0, 1]; if it is adaptive, the first.
        adaptive: whether every client learns an alpha of its own, which the paper proposes
            beside its algorithm with a fixed one.
        server_lr: factor on the mean update.

    Paper: Deng, Kamani and Mahdavi, "Adaptive Personalized Federated Learning", 2020,
    https://arxiv.org/abs/2003.13461
    """

    method = "apfl"

    def __init__(
        self, alpha: UpToOne = 0.5, adaptive: bool = False, server_lr: Positive = 1.0
    ) -> None:
        super().__init__(server_lr)
        self.method_options["alpha"] = alpha
        self.method_options["adaptive"] = adaptive
