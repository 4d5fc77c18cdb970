"""Aligned-MTL: the principal components of the updates, made equally long."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.conflict import ConflictAware
from strategies.cosines import ROUNDING, root, unit
from strategies.options import one_of


class AlignedMTL(ConflictAware):
    """Independent component alignment.

    With the singular values of the stacked updates ``[rows, P]`` written ``U S V^T``, the
    step is ``weights @ (s U V^T)``, s being a mean of the singular values: the nearest system
    of updates with a condition number of one. Singular values that the rounding of float32
    entries may make up, relative to the longest update's, count as zero. In coefficients,
    ``c = s * U S^-1 U^T weights``.

    Args:
        level: ``task`` or ``client``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`strategies.conflict.ConflictAware`.

        scale: s, as in the official code: ``min``, which the paper's convergence needs,
            ``median`` (of an even number, the lower one) or ``rmse``, the root mean square. It
            only matters with ``length="own"``.

    Raises:
        UserError: an option is out of range.

    Paper: Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR
    2023, https://arxiv.org/abs/2305.19000
    """

    def __init__(
        self,
        level: str = "task",
        server_lr: float = 1.0,
        length: str = "own",
        scale: str = "min",
    ) -> None:
        super().__init__(level, server_lr, length)
        self.scale = one_of("scale", scale, ("min", "median", "rmse"))

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length, cosines = unit(gram)
        _, s, ut = torch.linalg.svd(root(cosines) * length)
        kept = s > ROUNDING * len(gram) ** 0.5 * s[0]
        s, u = s[kept], ut[kept].T
        scales = {"min": s.min(), "median": s.median(), "rmse": s.square().mean().sqrt()}
        return scales[self.scale] * u @ (u.T @ weights / s)
