"""FedAdam: Adam on the server."""

from __future__ import annotations

from torch import Tensor

from fedjoint.options import BelowOne, Positive

from ._adaptive import Adaptive


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
        server_lr: Positive = 0.1,
        beta1: BelowOne = 0.9,
        beta2: BelowOne = 0.99,
        tau: Positive = 1e-3,
    ) -> None:
        super().__init__(server_lr, beta1, tau)
        self.beta2 = beta2

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return self.beta2 * v + (1 - self.beta2) * square
