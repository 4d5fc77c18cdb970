"""CAGrad, and the rule by which FedHCA2 merges encoders."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from strategies.conflict import ConflictAware
from strategies.convex import minimise
from strategies.cosines import APART, root, unit
from strategies.options import number


class CAGrad(ConflictAware):
    """Conflict-averse descent: the best worst case within a ball around the mean.

    ``step = argmax_d min_i <update_i, d>`` over ``|d - mean| <= radius * |mean|``, where mean is
    the weighted mean ``[P]``. By duality ``step = mean + radius * |mean| / |g| * g``, where
    ``g = sum_i x_i * update_i`` and x are the convex weights that minimise
    ``<g, mean> + radius * |mean| * |g|``. Where updates oppose each other so that g is zero, the
    step is the nearest to the mean that points against none of them.

    Args:
        level: ``task`` or ``client``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`strategies.conflict.ConflictAware`.
        radius: the paper's c, in [0, 1): 0 is the mean; it converges to a minimum of the mean
            loss whatever the value.

    Raises:
        UserError: an option is out of range.

    Paper: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021,
    https://arxiv.org/abs/2110.14048
    """

    def __init__(
        self,
        level: str = "task",
        server_lr: float = 1.0,
        length: str = "own",
        radius: float = 0.5,
    ) -> None:
        super().__init__(level, server_lr, length)
        self.radius = number("radius", radius, least=0, below=1)

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


class FedHCA2(CAGrad):
    """The conflict-averse merge of encoders in FedHCA2: CAGrad around the plain mean, rescaled.

    ``step = CAGrad(equal weights) / (1 + radius^2)``. Kept of the paper: this common step. Left
    out, since they give every client a backbone of its own or merge heads, which never travel
    here: the learnt per-client weights of the step, the mean over clients of the same tasks,
    and the cross attention between decoders.

    Args:
        level: ``client``, as in the paper, or ``task``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`strategies.conflict.ConflictAware`.
        radius: the paper's c, in [0, 1).

    Raises:
        UserError: an option is out of range.

    Paper: Lu et al., "FedHCA2: Towards Hetero-Client Federated Multi-Task Learning", CVPR 2024,
    https://arxiv.org/abs/2311.13250
    """

    omits = "weights learnt per client, cross attention of decoders, means of like clients"

    def __init__(
        self,
        level: str = "client",
        server_lr: float = 1.0,
        length: str = "own",
        radius: float = 0.4,
    ) -> None:
        super().__init__(level, server_lr, length, radius)

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        equal = torch.full_like(weights, 1 / len(weights))
        return super().coefficients(gram, equal) / (1 + self.radius**2)
