"""Nash-MTL: the updates bargain over the step."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.errors import UserError

from ._conflict import ConflictAware
from ._cosines import APART, root, unit

_STEPS, _TOLERANCE = 100, 1e-6  # of Newton's method; of the equation, relative


class NashMTL(ConflictAware):
    """The bargaining solution: the step maximises ``sum_i weights_i * log <update_i, step>``.

    Over steps of bounded length, the solution is a multiple of ``sum_i a_i * update_i`` with
    ``a > 0`` and ``gram @ a = weights / a`` (``gram`` ``[rows, rows]``, the inner products).
    This a is the one minimum of the convex ``a @ gram @ a / 2 - sum_i weights_i * log a_i``,
    found here by Newton's method with backtracking. The original weighs all alike and clips the
    length of the step; here a is scaled to a sum of one, so that the step is a mean.

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
        # Updates that cancel out have no agreement; apart, they keep a finite.
        directions = root(cosines, APART)
        gram = directions.T @ directions
        weights = weights.clamp(min=1e-12)

        def value(a: Tensor) -> float:
            return float((directions @ a).square().sum() / 2 - weights @ a.log())

        a = weights.sqrt()
        for _ in range(_STEPS):
            slope = directions.T @ (directions @ a) - weights / a
            if ((a * slope).abs() <= _TOLERANCE / 100 * weights).all():
                break
            move = torch.linalg.solve(gram + (weights / a.square()).diag(), slope)
            decrement = float(slope @ move)
            longest = float((move / a).max())
            factor = 1.0 if longest <= 0 else min(1.0, 0.99 / longest)  # a stays positive
            # The slack is rounding: close to the minimum, values no longer differ.
            before = value(a)
            slack = 1e-15 * (abs(before) + float(a.sum()))
            while value(a - factor * move) > before - factor * decrement / 4 + slack:
                factor /= 2
            a = a - factor * move
        if not ((a * slope).abs() <= _TOLERANCE * weights).all():
            raise UserError(
                "Nash-MTL found no bargain: lengths or weights of the updates differ too much; "
                "set strategy.weight_by = 'client', or take another strategy"
            )
        a = a / length
        return a / a.sum()
