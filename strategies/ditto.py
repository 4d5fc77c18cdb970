"""Ditto: FedAvg, beside a backbone of one's own held near the shared one.

The clients' half is :mod:`fedjoint.clients.ditto`.
"""

from __future__ import annotations

from fedjoint.options import NotNegative, Positive

from .fedavg import FedAvg


class Ditto(FedAvg):
    """Clients also train a backbone of their own, held near the shared one.

    It minimises ``loss + lam / 2 * |own - shared|^2`` and never travels.

    Args:
        lam: strength of the pull, not negative; 0 trains it alone.
        server_lr: factor on the mean update.

    Paper: Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML
    2021, https://arxiv.org/abs/2012.04221
    """

    method = "ditto"

    def __init__(self, lam: NotNegative = 0.1, server_lr: Positive = 1.0) -> None:
        super().__init__(server_lr)
        self.method_options["lam"] = lam
