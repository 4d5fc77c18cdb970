"""Nash-MTL: the updates bargain over the step."""

from __future__ import annotations

from torch import Tensor

from ._conflict import ConflictAware
from ._cosines import unit
from ._fair import fair


class NashMTL(ConflictAware):
    """The bargaining solution: the step maximises ``sum_i weights_i * log <update_i, step>``.

    Over steps of bounded length, the solution is a multiple of ``sum_i a_i * update_i`` with
    ``a > 0`` and ``gram @ a = weights / a`` (``gram`` ``[rows, rows]``, the inner products), see
    :func:`fedjoint.strategies._fair.fair`. The original weighs all alike and clips the length of
    the step; here a is scaled to a sum of one, so that the step is a mean.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.

    Raises:
        UserError: the equation cannot be met in a round.

    Paper: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
    https://arxiv.org/abs/2202.01017
    """

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        # With a * length for a, the same equation holds for the cosines.
        length, cosines = unit(gram)
        a = fair("Nash-MTL", cosines, weights.clamp(min=1e-12)) / length
        return a / a.sum()
