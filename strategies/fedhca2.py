"""FedHCA2: every client takes as much of a conflict-averse step as it learns to take."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fedjoint.options import BelowOne, NotNegative, UpToOne
from fedjoint.server.steps import Steps
from fedjoint.server.updates import Updates

from ._decoders import attended, layers
from ._of_clients import OfClients
from .cagrad import CAGrad


class FedHCA2(OfClients):
    """A backbone per client, with learnt weights for what it takes from the others.

    With the updates ``u_i`` of a round, client i's encoder moves by ``m_i + a_i * c``: ``m_i`` is
    the mean update of the clients with the same tasks, and ``c`` the conflict-averse step of all
    clients, ``CAGrad(equal weights) / (1 + radius^2)``. Each layer l of its decoders moves by
    ``u_il + b_il * (cross attention of u_il to all decoders')``, see
    :mod:`fedjoint.strategies._decoders`. Decoders are heads, and travel with
    ``model.heads = "shared"`` alone; else only encoders are merged.

    The weights ``a_i`` and ``b_il`` begin at ``start`` and are learnt by the chain rule: the next
    update of client i is the negative gradient of its loss where it was led, and so ``a_i`` rises
    with ``<c, next u_i>``, and ``b_il`` with the product with the attention. Each product is
    divided by the lengths of both, so that ``rate`` has no unit and holds for every model. Weights
    stay in [0, 1].

    Backbone 0, for clients that have not trained yet, becomes the weighted mean of those of a
    round. The state holds ``weights`` ``[K, 1 + layers]``, of the encoder and of each layer of the
    decoders, and ``along`` ``[K, P]``, by what each backbone's weights were multiplied last; and
    see :class:`fedjoint.strategies._of_clients.OfClients`.

    Args:
        radius: the paper's c, in [0, 1).
        start: first weights, in [0, 1].
        rate: most that a weight changes in a round.

    Paper: Lu et al., "FedHCA2: Towards Hetero-Client Federated Multi-Task Learning", CVPR 2024,
    https://arxiv.org/abs/2311.13250
    """

    omits = (
        "momentum and decay of the learnt weights, the lengths in what they learn from; decoders, "
        "unless model.heads is shared"
    )

    def __init__(
        self, radius: BelowOne = 0.4, start: UpToOne = 0.1, rate: NotNegative = 0.05
    ) -> None:
        super().__init__()
        self.radius = radius
        self.start = start
        self.rate = rate

    def merge(self, updates: Updates) -> Steps:
        layer = layers(updates.layout)
        weights = self.learnt(updates, layer)
        of, own = self.join(updates)
        known, size = len(updates.backbones), updates.matrix.shape[1]
        weights = torch.cat([weights, weights[:1].expand(len(of) - known, -1)])
        along = updates.matrix.new_zeros(len(of), size)
        along[:known] = self.state.get("along", along[:known])
        along[own] = self.common(updates, layer) + attended(updates)
        self.state |= {"weights": weights, "along": along}
        steps = torch.zeros_like(along)
        steps[own] = alike(updates, layer) + weights[own][:, layer] * along[own]
        ends = updates.backbones[updates.received] + steps[own]
        steps[0] = replace(updates, matrix=ends - updates.backbones[0]).mean()
        self.report["weight of the common step"] = float(weights[1:, 0].mean())
        return Steps(of, steps)

    def learnt(self, updates: Updates, layer: Tensor) -> Tensor:
        """``[K, 1 + layers]``, the weights after what the updates tell of the step before.

        Args:
            updates: of clients that were led somewhere, and of others.
            layer: ``[P]`` int64, which weight each parameter's is.
        """
        count = int(layer.max()) + 1
        first = updates.matrix.new_full((1, count), self.start)
        weights = self.state.get("weights", first).clone()
        led = updates.received > 0
        if not led.any():
            return weights
        at, update = updates.received[led], updates.matrix[led].double()
        along = self.state["along"][at].double()

        def products(one: Tensor, other: Tensor) -> Tensor:
            found = one.new_zeros(len(one), count)
            return found.index_add_(1, layer, one * other)

        length = (products(along, along) * products(update, update)).sqrt()
        cosine = products(along, update) / torch.where(length > 0, length, 1.0)
        weights[at] = (weights[at] + self.rate * cosine.to(weights)).clamp(0, 1)
        return weights

    def common(self, updates: Updates, layer: Tensor) -> Tensor:
        """``[P]``, the conflict-averse step of the encoder; zero in decoders."""
        encoders = updates.matrix * (layer == 0)
        equal = torch.full_like(updates.weights, 1 / len(updates))
        rule = CAGrad(level="client", radius=self.radius)
        step = rule.merge(replace(updates, matrix=encoders, weights=equal))
        return step / (1 + self.radius**2)


def alike(updates: Updates, layer: Tensor) -> Tensor:
    """``[rows, P]``, in the encoder the mean update of the clients with the same tasks."""
    _, group = updates.tasks.unique(dim=0, return_inverse=True)
    same = (group[:, None] == group).to(updates.matrix)
    return torch.where(layer == 0, same / same.sum(1) @ updates.matrix, updates.matrix)
