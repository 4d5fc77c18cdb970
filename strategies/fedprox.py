"""FedProx: local training stays near the backbone it received.

The clients' half is :mod:`fedjoint.clients.prox`.
"""

from fedjoint.options import NotNegative, Positive

from .fedavg import FedAvg


class FedProx(FedAvg):
    """FedAvg whose clients minimise ``loss + mu / 2 * |backbone - received backbone|^2``.

    Args:
        mu: strength of the pull towards the received backbone, not negative.
        server_lr: factor on the mean update.

    Paper: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020,
    https://arxiv.org/abs/1812.06127
    """

    omits = "less work on slow clients"
    method = "prox"

    def __init__(self, mu: NotNegative = 0.01, server_lr: Positive = 1.0) -> None:
        super().__init__(server_lr)
        self.method_options["mu"] = mu
