"""FedAdagrad: Adagrad on the server."""

from __future__ import annotations

from torch import Tensor

from fedjoint.options import Positive

from ._adaptive import Adaptive


class FedAdagrad(Adaptive):
    """Adagrad on the server: ``v <- v + mean^2``, without momentum.

    Args:
        server_lr: length of the step.
        tau: added to sqrt(v), and its first value, above zero.

    Paper: as :class:`Adaptive`.
    """

    def __init__(self, server_lr: Positive = 0.1, tau: Positive = 1e-3) -> None:
        super().__init__(server_lr, beta1=0.0, tau=tau)

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return v + square
