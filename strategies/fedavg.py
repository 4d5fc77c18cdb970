"""FedAvg: the weighted mean of the updates."""

from torch import Tensor

from fedjoint.options import Positive
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates


class FedAvg(JointStrategy):
    """Federated averaging: ``step = server_lr * sum_i weights_i * update_i``.

    Server optimisers subclass it and override :meth:`step`, which sees only the mean; the
    engine may then sum the updates where they are made, and never stack them.

    Args:
        server_lr: factor on the mean update, above zero; 1 is plain averaging.

    Paper: McMahan et al., "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", AISTATS 2017, https://arxiv.org/abs/1602.05629
    """

    per_client = False

    def __init__(self, server_lr: Positive = 1.0) -> None:
        super().__init__()
        self.server_lr = server_lr

    def merge(self, updates: Updates) -> Tensor:
        return self.step(updates.mean())

    def step(self, mean: Tensor) -> Tensor:
        """Turn the ``[P]`` mean update into the ``[P]`` step of the backbone."""
        return self.server_lr * mean
