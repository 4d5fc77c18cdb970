"""Aligned-MTL: the principal components of the updates, made equally long."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.conflict import ConflictAware
from strategies.options import one_of


class AlignedMTL(ConflictAware):
    """Independent component alignment.

    With the singular values of the stacked updates ``[rows, P]`` written ``U S V^T``, the
    step is ``weights @ (s U V^T)``, s being a mean of the singular values above noise: the
    nearest system of updates with a condition number of one. In coefficients,
    ``c = s * U S^-1 U^T weights``, and U and S^2 are the eigenvectors and eigenvalues of the
    inner products.

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
        values, u = torch.linalg.eigh(gram)
        # The Gram matrix was summed in float32: smaller eigenvalues are noise.
        kept = values > values[-1] * len(gram) * torch.finfo(torch.float32).eps
        s, u = values[kept].sqrt(), u[:, kept]
        scales = {"min": s.min(), "median": s.median(), "rmse": s.square().mean().sqrt()}
        return scales[self.scale] * u @ (u.T @ weights / s)
