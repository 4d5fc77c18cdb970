"""FedProx's local method.

The server's half is :mod:`fedjoint.strategies.fedprox`.
"""

from __future__ import annotations

from fedjoint.options import NotNegative
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


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

    def train(self, job: Job) -> Tensors:
        received = job.layout.views(job.start)

        def pull(gradients: Tensors, parameters: Tensors) -> None:
            for name in gradients.keys() & received.keys():
                gradients[name] = gradients[name] + self.mu * (parameters[name] - received[name])

        job.descend(correct=pull)
        return {}
