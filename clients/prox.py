"""FedProx's local method.

The server's half is :mod:`fedjoint.strategies.fedprox`.
"""

from __future__ import annotations

from fedjoint.config.schema import Config
from fedjoint.options import NotNegative
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors

from ._pull import check_pull, pull_to


class Prox(LocalMethod):
    """Minimise ``loss + mu / 2 * |backbone - received|^2``.

    Args:
        mu: strength of the pull.

    Paper: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020,
    https://arxiv.org/abs/1812.06127
    """

    omits = "less work on slow clients"

    def __init__(self, mu: NotNegative) -> None:
        self.mu: float = mu

    def check_config(self, config: Config) -> None:
        check_pull("mu", self.mu, config)

    def train(self, job: Job) -> Tensors:
        job.descend(correct=pull_to(job.layout.views(job.start), self.mu))
        return {}
