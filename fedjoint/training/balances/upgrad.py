"""UPGrad within a client's step."""

from __future__ import annotations

from torch import Tensor

from fedjoint.training.balance import Balance
from fedjoint.training.balances._descent import non_negative


class UPGrad(Balance):
    """Jacobian descent: each task's gradient is projected to where it opposes none.

    The projection of gradient i of the backbone is ``gradient_i + sum_j x_j * gradient_j`` with the
    ``x >= 0`` that makes it shortest; the step descends the sum of the projections. Between
    clients or tasks it is the strategy of that name.

    Paper: Quinton and Rey, "Jacobian Descent For Multi-Objective Optimization", 2024,
    https://arxiv.org/abs/2406.16232
    """

    separate = resolves = True

    def resolve(self, gram: Tensor) -> Tensor:
        return 1 + non_negative(gram, -gram).sum(0)
