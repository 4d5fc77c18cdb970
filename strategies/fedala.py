"""FedALA: FedAvg, whose clients learn how to merge what they receive with what they had.

The clients' half is :mod:`fedjoint.clients.ala`.
"""

from __future__ import annotations

from fedjoint.options import Count, Positive

from .fedavg import FedAvg


class FedALA(FedAvg):
    """Clients start from a merge of the received backbone with their own, learnt on their data.

    Args:
        mix_epochs: passes over a client's data to learn its merge, before each training.
        mix_rate: of the steps by which it is learnt.
        server_lr: factor on the mean update.

    Paper: Zhang et al., "FedALA: Adaptive Local Aggregation for Personalized Federated Learning",
    AAAI 2023, https://arxiv.org/abs/2212.01197
    """

    method = "ala"
    omits = "lower layers that are not mixed, a sample of the data, more passes in the first round"

    def __init__(
        self, mix_epochs: Count = 1, mix_rate: Positive = 1.0, server_lr: Positive = 1.0
    ) -> None:
        super().__init__(server_lr)
        self.method_options |= {"mix_epochs": mix_epochs, "mix_rate": mix_rate}
