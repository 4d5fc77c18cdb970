"""Aligned-MTL: the principal components of the updates, made equally long."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.conflict import ConflictAware


class AlignedMTL(ConflictAware):
    """Independent component alignment.

    With the singular values of the stacked updates ``[rows, P]`` written ``U S V^T``, the
    step is ``weights @ (s U V^T)``, s being the smallest singular value above noise: the
    nearest system of updates with a condition number of one. In coefficients,
    ``c = s * U S^-1 U^T weights``, and U and S^2 are the eigenvectors and eigenvalues of the
    inner products.

    Args:
        level: ``client`` or ``task``.
        server_lr: factor on the step.

    Paper: Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR
    2023, https://arxiv.org/abs/2305.19000
    """

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        values, u = torch.linalg.eigh(gram)
        # The Gram matrix was summed in float32: smaller eigenvalues are noise.
        kept = values > values[-1] * len(gram) * torch.finfo(torch.float32).eps
        s, u = values[kept].sqrt(), u[:, kept]
        return s.min() * u @ (u.T @ weights / s)
