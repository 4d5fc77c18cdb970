"""IMTL-G: a step with the same projection onto every update."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.conflict import ConflictAware


class IMTLG(ConflictAware):
    """Impartial multi-task learning, gradient part.

    Coefficients c that sum to one make ``<step, update_i> / |update_i|`` the same for all i:
    ``c`` is a multiple of ``pinv(gram) @ lengths``, with ``gram`` ``[rows, rows]`` the inner
    products and ``lengths`` ``[rows]``. Weights play no part. Where only the zero step has
    equal projections, the step is zero.

    Where unequal lengths make the one step of that kind point against every update, the
    coefficients sum to minus one here: its opposite, which helps every client alike.

    Args:
        level: ``task`` or ``client``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`strategies.conflict.ConflictAware`.

    Paper: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021,
    https://openreview.net/forum?id=IMPnRXEWpvr
    """

    omits = "the balance of losses, IMTL-L"

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length = gram.diagonal().sqrt()
        cosines = gram / torch.outer(length, length)
        # The Gram matrix was summed in float32: smaller eigenvalues are noise.
        accuracy = len(gram) * torch.finfo(torch.float32).eps
        inverse = torch.linalg.pinv(cosines, rtol=accuracy, hermitian=True)
        c = inverse.sum(1) / length
        total = c.sum()
        # A positive multiple of c, which has a projection of one onto every update.
        return c / total.abs() if total.abs() > accuracy * c.abs().sum() else 0 * c
