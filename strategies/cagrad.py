"""CAGrad: the best worst case within a ball around the mean."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.convex import minimise
from fedjoint.options import BelowOne, Positive

from ._conflict import ConflictAware, Length, Level
from ._cosines import APART, root, unit


class CAGrad(ConflictAware):
    """Conflict-averse descent: the best worst case within a ball around the mean.

    ``step = argmax_d min_i <update_i, d>`` over ``|d - mean| <= radius * |mean|``, where mean is
    the weighted mean ``[P]``. By duality ``step = mean + radius * |mean| / |g| * g``, where
    ``g = sum_i x_i * update_i`` and x are the convex weights that minimise
    ``<g, mean> + radius * |mean| * |g|``. Where updates oppose each other so that g is zero, the
    step is the nearest to the mean that points against none of them.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.
        radius: the paper's c, in [0, 1): 0 is the mean; it converges to a minimum of the mean
            loss whatever the value.

    Paper: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021,
    https://arxiv.org/abs/2110.14048
    """

    def __init__(
        self,
        level: Level = "task",
        server_lr: Positive = 1.0,
        length: Length = "own",
        radius: BelowOne = 0.5,
    ) -> None:
        super().__init__(level, server_lr, length)
        self.radius = radius

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length, cosines = unit(gram)
        # In units of the shortest update, x_i * length_i is of order one whatever the lengths.
        share = (length.min() / length).numpy()
        start = weights.numpy() / share
        with_mean = cosines.numpy() @ start
        size = np.sqrt(max(start @ with_mean, 0))  # of the mean
        if self.radius == 0 or size == 0:
            return weights
        # Apart, as g = 0 is a kink of the dual, at which the step has no limit.
        directions = root(cosines, APART).numpy()

        def function(x: np.ndarray) -> tuple[float, np.ndarray]:
            g = directions @ x
            slope = with_mean / size + self.radius * directions.T @ g / np.linalg.norm(g)
            return x @ slope, slope

        x = minimise(function, start, np.zeros_like(share), 1 / share, share)
        factor = self.radius * size / np.linalg.norm(directions @ x)
        return weights + torch.from_numpy(factor * x * share)
