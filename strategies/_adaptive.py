"""Base of the server optimisers with a step length per parameter."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.options import BelowOne, Positive

from .fedavg import FedAvg


class Adaptive(FedAvg):
    """What the three share: momentum, and a step size for each parameter.

    ``m <- beta1 * m + (1 - beta1) * mean``, a rule for ``v``, and
    ``step = server_lr * m / (sqrt(v) + tau)``.

    All terms are ``[P]``; at first, m is zero and v is ``tau^2``, the least that the paper
    allows. The state holds ``m`` and ``v``. Subclasses give the rule for v in
    :meth:`second_moment`.

    Flower's rules of these names start v at zero, and its FedAdam multiplies the step by a
    correction for that, ``sqrt(1 - beta2^(n + 1)) / (1 - beta1^(n + 1))`` in round n, which the
    paper does not have.

    Args:
        server_lr: length of the step.
        beta1: share of the last m that is kept, in [0, 1).
        tau: added to sqrt(v), and its first value, above zero: the larger, the less the step
            adapts.

    Paper: Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
    https://arxiv.org/abs/2003.00295
    """

    def __init__(self, server_lr: Positive, beta1: BelowOne, tau: Positive) -> None:
        super().__init__(server_lr)
        self.beta1 = beta1
        self.tau = tau

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """Return the next ``[P]`` v from the last one and the squared mean update."""
        raise NotImplementedError

    def step(self, mean: Tensor) -> Tensor:
        m = self.state.get("m", torch.zeros_like(mean))
        v = self.state.get("v", torch.full_like(mean, self.tau**2))
        self.state["m"] = m = self.beta1 * m + (1 - self.beta1) * mean
        self.state["v"] = v = self.second_moment(v, mean.square())
        return self.server_lr * m / (v.sqrt() + self.tau)
