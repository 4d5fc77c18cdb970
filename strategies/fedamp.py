"""FedAMP: every client has a cloud model, which attends to the models that are like its own.

The clients' half is :mod:`fedjoint.clients.amp`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.options import NotNegative, Positive, UpToOne
from fedjoint.server.steps import Steps
from fedjoint.server.updates import Updates, inner_products

from ._cosines import squared_distances
from ._of_clients import OfClients


class FedAMP(OfClients):
    """Attentive message passing: a backbone per client, a mean of those that are like its own.

    With the models ``w_i`` that n clients send, the cloud models become
    ``u_i = (1 - sum_j a_ij) w_i + sum_j a_ij w_j``, j other than i, with
    ``a_ij = alpha / (n - 1) * exp(-|w_i - w_j|^2 / (sigma * m))``, m being the mean of the squared
    distances. That is the paper's rule for its ``A(x) = 1 - exp(-x / s)``, with ``s = sigma * m``
    and a step of ``alpha * s / (n - 1)``: options have no unit, and hold for every model.

    Backbone 0, for clients that have not trained yet, becomes the weighted mean of the ``w_i`` of a
    round.

    Args:
        alpha: most that a client takes from the others, in [0, 1].
        sigma: squared distance at which the attention falls to 1 / e, over the mean one.
        lam: strength of the clients' pull to their cloud models, the paper's lambda / alpha_k.

    Paper: Huang et al., "Personalized Cross-Silo Federated Learning on Non-IID Data", AAAI 2021,
    https://arxiv.org/abs/2007.03797
    """

    method = "amp"
    omits = "messages of clients that are absent from a round, HeurFedAMP"

    def __init__(self, alpha: UpToOne = 0.5, sigma: Positive = 1.0, lam: NotNegative = 0.1) -> None:
        super().__init__()
        self.alpha = alpha
        self.sigma = sigma
        self.method_options = {"lam": lam}

    def merge(self, updates: Updates) -> Steps:
        of, own = self.join(updates)
        received = updates.backbones[updates.received]
        models = received + updates.matrix
        steps = models.new_zeros(len(of), models.shape[1])
        steps[own] = self.attention(models) @ models - received
        steps[0] = updates.weights @ models - updates.backbones[0]
        return Steps(of, steps)

    def attention(self, models: Tensor) -> Tensor:
        """``[n, n]``, the weights of ``models`` ``[n, P]`` in each client's cloud model."""
        count, distance = len(models), squared_distances(inner_products(models))
        mean = distance.sum() / max(1, count * (count - 1))
        others = (
            self.alpha
            / max(1, count - 1)
            * torch.exp(-distance / (self.sigma * mean).clamp(min=1e-30))
        )
        others.fill_diagonal_(0)
        return (others + (1 - others.sum(1)).diag()).to(models)
