"""Scaffold: control variates against the drift of local training.

The clients' half is :mod:`fedjoint.clients.scaffold`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.server.updates import Updates
from fedjoint.training.method import LocalMethod

from ._population import OverPopulation


class Scaffold(OverPopulation):
    """Stochastic controlled averaging.

    Clients correct every local step by ``c - c_i``, the server's control minus their own, both
    ``[P]``, and send the change of their control as ``extras["control"]`` ``[rows, P]``. Then
    ``step = server_lr * sum_i update_i / rows`` and ``c <- c + sum_i change_i / population``.
    As in the paper, every client counts the same in both means, whatever its weight: the
    backbone and the controls then agree on one objective, the plain mean of the clients'.

    The state holds ``controls``, ``population * c`` of shape ``[P]``, so that c stays the mean
    of the clients' controls when others join, whose control is zero at first.

    Args:
        population: number of clients; 0 counts those that the run knows of.
        server_lr: factor on the mean update.

    Paper: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated
    Learning", ICML 2020, https://arxiv.org/abs/1910.06378
    """

    method = "scaffold"

    def check_config(self, config: Config, method: LocalMethod) -> None:
        if config.local.optimiser.name != "sgd":
            raise UserError(
                "scaffold needs local.optimiser.name = 'sgd': a control is a mean of gradients, "
                f"which the way that {config.local.optimiser.name} takes does not tell"
            )

    def broadcast(self, backbone: Tensor) -> dict[str, Tensor]:
        """Return the server's ``control`` ``[P]``."""
        controls = self.state.get("controls", torch.zeros_like(backbone))
        return {"control": controls / self.population}

    def merge(self, updates: Updates) -> Tensor:
        self.see(updates)
        changes = updates.extras["control"].sum(0)
        self.state["controls"] = self.state.get("controls", torch.zeros_like(changes)) + changes
        return self.server_lr * updates.matrix.mean(0)
