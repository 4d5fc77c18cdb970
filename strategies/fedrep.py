"""FedRep: FedAvg of backbones under heads that are fitted first.

The clients' half is :mod:`fedjoint.clients.rep`.
"""

from __future__ import annotations

from fedjoint.options import Count, Positive

from .fedavg import FedAvg


class FedRep(FedAvg):
    """Clients first fit their heads to the frozen backbone, then the backbone to the heads.

    Args:
        head_steps: local steps on the heads, by default 10; the method's usual steps go to the
            backbone.
        server_lr: factor on the mean update.
        head_epochs: passes over a client's data on its heads, in place of steps.

    Paper: Collins et al., "Exploiting Shared Representations for Personalized Federated
    Learning", ICML 2021, https://arxiv.org/abs/2102.07078
    """

    method = "rep"

    def __init__(
        self,
        head_steps: Count | None = None,
        server_lr: Positive = 1.0,
        head_epochs: Count | None = None,
    ) -> None:
        super().__init__(server_lr)
        if head_epochs is not None:
            self.method_options["head_epochs"] = head_epochs
        if head_steps is not None or head_epochs is None:
            self.method_options["head_steps"] = head_steps or 10
