"""IMTL-G: a step with the same projection onto every update."""

from __future__ import annotations

import torch
from torch import Tensor

from ._conflict import ConflictAware
from ._cosines import ROUNDING, unit


class IMTLG(ConflictAware):
    """Impartial multi-task learning, gradient part.

    Coefficients c that sum to one make ``<step, update_i> / |update_i|`` the same for all i:
    ``c`` is a multiple of ``pinv(gram) @ lengths``, with ``gram`` ``[rows, rows]`` the inner
    products and ``lengths`` ``[rows]``. Weights play no part. The step is zero where only the
    zero step has equal projections, and where coefficients sum to zero. Updates that depend on
    one another up to the rounding of their float32 entries count as dependent.

    Where unequal lengths make the one step of that kind point against every update, the
    coefficients sum to minus one here: its opposite, which helps every client alike.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.

    Paper: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021,
    https://openreview.net/forum?id=IMPnRXEWpvr
    """

    omits = "the balance of losses, IMTL-L"

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length, cosines = unit(gram)
        values, vectors = torch.linalg.eigh(cosines)
        # Rounding moves the singular values of the unit updates, roots of these, by no more.
        noise = ROUNDING**2 * len(gram)
        kept = values > noise
        ones = vectors.sum(0)  # the projections wanted, in the basis of the eigenvectors
        # The step d with projections nearest to one. Dependent updates, moved as far as
        # rounding may have, change them by |d| times that; what is missing beyond has no cure.
        square = (ones[kept].square() / values[kept]).sum()
        missing = ones[~kept].square().sum()
        c = vectors[:, kept] @ (ones[kept] / values[kept]) / length
        total, doubt = c.sum().abs(), (noise / values[kept].min()).sqrt()
        if missing > noise * square or total <= doubt * c.abs().sum():
            return torch.zeros_like(c)
        return c / total  # a positive multiple: nobody's projection is negative
