"""Nash-MTL: the updates bargain over the step."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.conflict import ConflictAware


class NashMTL(ConflictAware):
    """The bargaining solution: the step maximises ``sum_i weights_i * log <update_i, step>``.

    Over steps of bounded length, the solution is a multiple of ``sum_i a_i * update_i`` with
    ``a > 0`` and ``gram @ a = weights / a`` (``gram`` ``[rows, rows]``, the inner products).
    This a is the one minimum of the convex ``a @ gram @ a / 2 - sum_i weights_i * log a_i``,
    found here by Newton's method. The original weighs all alike and clips the length of
    the step; here a is scaled to a sum of one, so that the step is a mean.

    Args:
        level: ``client`` or ``task``.
        server_lr: factor on the step.

    Paper: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
    https://arxiv.org/abs/2202.01017
    """

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        # Updates that cancel out have no agreement: the ridge keeps their minimum finite.
        gram = gram + 1e-9 * torch.eye(len(gram), dtype=gram.dtype)
        weights = weights.clamp(min=1e-12)
        a = (weights / gram.diagonal()).sqrt()
        for _ in range(100):
            slope = gram @ a - weights / a
            curvature = gram + (weights / a.square()).diag()
            move = torch.linalg.solve(curvature, slope)
            # The decrement of a self-concordant function: damped steps stay positive.
            decrement = (slope @ move / weights.min()).clamp(min=0).sqrt()
            a = a - move / (1 + decrement)
            if decrement < 1e-10:
                break
        return a / a.sum()
