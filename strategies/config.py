"""ConFIG: a step with the same cosine to every update, as long as they agree with it."""

from __future__ import annotations

import torch
from torch import Tensor

from ._conflict import ConflictAware
from ._cosines import ROUNDING, unit


class ConFIG(ConflictAware):
    """Conflict-free inverse gradients: the direction d ``[P]`` with equal cosines to all updates.

    ``d = pinv(unit updates [rows, P]) @ ones``, and ``step = d * sum_i weights_i * <update_i, d>``
    for d of length one. The direction is that of IMTL-G; the length is the part of the weighted
    mean along it. Where no direction has equal cosines, d is the least-squares solution. The
    original adds up the projections, and has no weights.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.

    Paper: Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural
    Networks", ICLR 2025, https://arxiv.org/abs/2408.11104
    """

    omits = "M-ConFIG, its momentum of alternating gradients"

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length, cosines = unit(gram)
        values, vectors = torch.linalg.eigh(cosines)
        kept = values > ROUNDING**2 * len(gram)  # as rounding moves them
        c = vectors[:, kept] @ (vectors.sum(0)[kept] / values[kept])
        gains = cosines @ c
        square = c @ gains
        # Of opposite updates, what is left is rounding.
        if square <= ROUNDING**2 * c.abs().sum() ** 2:
            return torch.zeros_like(c)
        return c / length * (weights * length @ gains) / square
