"""FedProx: local training stays near the backbone it received."""

from strategies.fedavg import FedAvg
from strategies.options import number


class FedProx(FedAvg):
    """FedAvg whose clients minimise ``loss + mu / 2 * |backbone - received backbone|^2``.

    Args:
        mu: strength of the pull towards the received backbone, not negative.
        server_lr: factor on the mean update.

    Raises:
        UserError: an option is out of range.

    Paper: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020,
    https://arxiv.org/abs/1812.06127
    """

    omits = "less work on slow clients"
    method = "prox"

    def __init__(self, mu: float = 0.01, server_lr: float = 1.0) -> None:
        super().__init__(server_lr)
        self.method_options["mu"] = number("mu", mu, least=0)
