"""Aligned-MTL: the principal components of the updates, made equally long."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedjoint.options import Positive

from ._conflict import ConflictAware, Length, Level
from ._cosines import ROUNDING, root, unit


class AlignedMTL(ConflictAware):
    """Independent component alignment.

    With the singular values of the stacked updates ``[rows, P]`` written ``U S V^T``, the
    step is ``weights @ (s U V^T)``, s being a mean of the singular values: the nearest system
    of updates with a condition number of one. Singular values that the rounding of float32
    entries may make up, relative to the longest update's, count as zero. In coefficients,
    ``c = s * U S^-1 U^T weights``.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.

        scale: s, as in the official code: ``min``, which the paper's convergence needs,
            ``median`` (of an even number, the lower one) or ``rmse``, the root mean square. It
            only matters with ``length="own"``.

    Paper: Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR
    2023, https://arxiv.org/abs/2305.19000
    """

    def __init__(
        self,
        level: Level = "task",
        server_lr: Positive = 1.0,
        length: Length = "own",
        scale: Literal["min", "median", "rmse"] = "min",
    ) -> None:
        super().__init__(level, server_lr, length)
        self.scale = scale

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length, cosines = unit(gram)
        _, s, ut = torch.linalg.svd(root(cosines) * length)
        kept = s > ROUNDING * len(gram) ** 0.5 * s[0]
        s, u = s[kept], ut[kept].T
        scales = {"min": s.min(), "median": s.median(), "rmse": s.square().mean().sqrt()}
        return scales[self.scale] * u @ (u.T @ weights / s)
