"""FedAdagrad, FedYogi and FedAdam: server optimisers with a step length per parameter."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.fedavg import FedAvg
from strategies.options import number


class Adaptive(FedAvg):
    """What the three share: ``m <- beta1 * m + (1 - beta1) * mean``, a rule for ``v``, and

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

    Raises:
        UserError: an option is out of range.

    Paper: Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
    https://arxiv.org/abs/2003.00295
    """

    def __init__(self, server_lr: float, beta1: float, tau: float) -> None:
        super().__init__(server_lr)
        self.beta1 = number("beta1", beta1, least=0, below=1)
        self.tau = number("tau", tau, above=0)

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """Return the next ``[P]`` v from the last one and the squared mean update."""
        raise NotImplementedError

    def step(self, mean: Tensor) -> Tensor:
        m = self.state.get("m", torch.zeros_like(mean))
        v = self.state.get("v", torch.full_like(mean, self.tau**2))
        self.state["m"] = m = self.beta1 * m + (1 - self.beta1) * mean
        self.state["v"] = v = self.second_moment(v, mean.square())
        return self.server_lr * m / (v.sqrt() + self.tau)


class FedAdagrad(Adaptive):
    """Adagrad on the server: ``v <- v + mean^2``, without momentum.

    Args:
        server_lr: length of the step.
        tau: added to sqrt(v), and its first value, above zero.

    Paper: as :class:`Adaptive`.
    """

    def __init__(self, server_lr: float = 0.1, tau: float = 1e-3) -> None:
        super().__init__(server_lr, beta1=0.0, tau=tau)

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return v + square


class FedYogi(Adaptive):
    """Yogi on the server: ``v <- v - (1 - beta2) * mean^2 * sign(v - mean^2)``.

    Args:
        server_lr: length of the step.
        beta1: share of the last m that is kept, in [0, 1).
        beta2: one minus how fast v follows the squared mean, in [0, 1).
        tau: added to sqrt(v), and its first value, above zero.

    Paper: as :class:`Adaptive`.
    """

    def __init__(
        self,
        server_lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
    ) -> None:
        super().__init__(server_lr, beta1, tau)
        self.beta2 = number("beta2", beta2, least=0, below=1)

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return v - (1 - self.beta2) * square * (v - square).sign()


class FedAdam(Adaptive):
    """Adam on the server: ``v <- beta2 * v + (1 - beta2) * mean^2``.

    Args:
        server_lr: length of the step.
        beta1: share of the last m that is kept, in [0, 1).
        beta2: share of the last v that is kept, in [0, 1).
        tau: added to sqrt(v), and its first value, above zero.

    Paper: as :class:`Adaptive`.
    """

    def __init__(
        self,
        server_lr: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
    ) -> None:
        super().__init__(server_lr, beta1, tau)
        self.beta2 = number("beta2", beta2, least=0, below=1)

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return self.beta2 * v + (1 - self.beta2) * square
