"""FedNova: averaging that does not favour the clients that took more steps."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.server.strategy import circumstances
from fedjoint.server.updates import Updates
from fedjoint.training.accumulation import accumulated, scales
from fedjoint.training.method import LocalMethod

from .fedavg import FedAvg


class FedNova(FedAvg):
    """Normalised averaging: ``step = server_lr * tau * sum_i weights_i * update_i / length_i``.

    ``update_i`` (``[P]``) is a sum of gradients with coefficients a, see
    :func:`fedjoint.training.accumulation.accumulated`. ``length_i``, the paper's ``|a|_1``, is
    their sum, times the client's entry of ``local.lr_scales``; it is the number of steps under
    plain SGD, and counts momentum and a proximal term in. ``tau = sum_i weights_i * length_i``
    restores the length. With equal lengths it is FedAvg. Weight decay is part of the loss here,
    as in the paper's own code. Adam has no such coefficients, and some local methods take
    other steps: both are refused.

    Args:
        server_lr: factor on the merged update.

    Paper: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous
    Federated Optimization", NeurIPS 2020, https://arxiv.org/abs/2007.07481
    """

    per_client = True

    def check_config(self, config: Config, method: LocalMethod) -> None:
        if not method.shares:
            return
        if config.local.optimiser.name != "sgd":
            raise UserError(
                "fednova divides by how gradients add up, which they do not with "
                f"local.optimiser.name = {config.local.optimiser.name!r}: set it to 'sgd', or "
                "take another strategy"
            )
        if method.mu is None:
            raise UserError(
                f"fednova does not know how gradients add up under local.method = "
                f"{config.local.method!r}: leave local.method out, take 'prox', or say mu in "
                "the method (see fedjoint.training.method.LocalMethod)"
            )

    def merge(self, updates: Updates) -> Tensor:
        length = self.lengths(updates)
        tau = updates.weights @ length
        # An update of no steps is zero: any divisor will do.
        safe = torch.where(length > 0, length, 1)
        return self.step(tau * updates.combine(updates.weights / safe))

    def lengths(self, updates: Updates) -> Tensor:
        """Return ``[rows]``, the lengths of the clients' ways; outside a run, of plain SGD's."""
        steps = updates.steps.numpy()
        known = circumstances(self)
        if known is None:
            return updates.steps.to(updates.weights)
        local, mu = known.config.local, known.method.mu or 0.0
        scale = scales(local, updates.clients.numpy())
        if updates.rates is not None:
            scale = scale * updates.rates.numpy()
        pull = local.rate(updates.round) * mu * scale
        found = scale * accumulated(steps, local.optimiser.momentum, pull)
        return torch.from_numpy(found).to(updates.weights)
