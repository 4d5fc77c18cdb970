"""FairGrad: the updates' gains are alpha-fair."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from fedjoint.options import Positive

from ._conflict import ConflictAware, Length, Level
from ._cosines import unit
from ._fair import fair

#: Beyond it, gains are equal to the rounding of updates, or their differences no longer count.
Alpha = Annotated[float, Field(ge=0.1, le=10)]


class FairGrad(ConflictAware):
    """The step maximises ``sum_i weights_i * <update_i, step> ** (1 - alpha) / (1 - alpha)``.

    Over steps of bounded length, the solution is a multiple of ``sum_i a_i * update_i`` with
    ``a > 0`` and ``gram @ a = (weights / a) ** (1 / alpha)`` (``gram`` ``[rows, rows]``, the inner
    products), see :func:`fedjoint.strategies._fair.fair`. With alpha 1 that is Nash-MTL; towards 0
    it becomes the mean, and towards infinity gains become equal. The original weighs all alike and
    steps by that combination; here a is scaled to a sum of one, so that the step is a mean.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.
        alpha: the paper's, in [0.1, 10].

    Raises:
        UserError: the equation cannot be met in a round.

    Paper: Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024,
    https://arxiv.org/abs/2402.15638
    """

    def __init__(
        self,
        level: Level = "task",
        server_lr: Positive = 1.0,
        length: Length = "own",
        alpha: Alpha = 2.0,
    ) -> None:
        super().__init__(level, server_lr, length)
        self.alpha = alpha

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        # With a * length for a, the equation holds for the cosines and these shares.
        length, cosines = unit(gram)
        shares = weights.clamp(min=1e-12) * length ** (1 - self.alpha)
        a = fair("FairGrad", cosines, shares / shares.mean(), self.alpha) / length
        return a / a.sum()
