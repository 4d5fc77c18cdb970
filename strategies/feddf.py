"""FedDF: groups of models are averaged, and then learn from the ensemble of all clients.

The clients' half is :mod:`fedjoint.clients.feddf`.
"""

from __future__ import annotations

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.options import Count, Positive
from fedjoint.training.method import LocalMethod

from .fedmd import FedMD


class FedDF(FedMD):
    """The plain mean of whole models, which then distil the clients' mean logits.

    The ensemble is the mean over the clients of all groups of their logits for the problem's
    ``public`` examples; see :class:`fedjoint.strategies.fedmd.FedMD`. The paper's server distils it
    into each group's mean; here clients do, each alike, as the next round begins, as no model is on
    the server. Heads have to be shared.

    Args:
        digest_steps: steps of distillation, before the round's budget on own data.
        server_lr: factor on the mean update.

    Raises:
        UserError: heads are private.

    Paper: Lin et al., "Ensemble Distillation for Robust Model Fusion in Federated Learning",
    NeurIPS 2020, https://arxiv.org/abs/2006.07242
    """

    method = "feddf"
    omits = "distillation after the last round, and its own optimiser and early stopping"

    def __init__(self, digest_steps: Count = 10, server_lr: Positive = 1.0) -> None:
        super().__init__(digest_steps, merge=True, server_lr=server_lr)
        del self.method_options["merge"]

    def check_config(self, config: Config, method: LocalMethod) -> None:
        super().check_config(config, method)
        if config.model.heads != "shared":
            raise UserError("feddf averages whole models: set model.heads = 'shared'")
