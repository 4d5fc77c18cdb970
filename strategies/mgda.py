"""MGDA and FedMGDA+: the shortest convex combination of the updates."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from strategies.conflict import ConflictAware
from strategies.convex import minimise
from strategies.cosines import root, unit
from strategies.options import number


class MGDA(ConflictAware):
    """Multiple gradient descent: ``c = argmin |sum_i c_i * update_i|^2`` over convex weights.

    If the shortest combination is not zero, the step has an inner product of at least its
    squared length with every update ``[P]``: no client is harmed, to first order. Weights play
    no part.

    Solved exactly: ``x >= 0`` that minimises ``|sum_i x_i * update_i|^2 + (sum_i x_i - 1)^2``
    is a multiple of c, and non-negative least squares finds it with an active set. Lengths are
    in units of the shortest update, as the step is no longer than that.

    Args:
        level: ``task`` or ``client``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`strategies.conflict.ConflictAware`.

    Papers: Desideri, "Multiple-gradient descent algorithm (MGDA) for multiobjective
    optimization", 2012, https://doi.org/10.1016/j.crma.2012.03.014; Sener and Koltun,
    "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018,
    https://arxiv.org/abs/1810.04650
    """

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length, cosines = unit(gram)
        share = (length.min() / length).numpy()  # per unit of x_i * length_i
        system = np.vstack([root(cosines).numpy(), share])
        x, _ = nnls(system, np.append(np.zeros(len(share)), 1.0))
        return torch.from_numpy(x * share / (x @ share))


class FedMGDAPlus(ConflictAware):
    """MGDA on updates of unit length, with weights near the clients' own.

    ``c_i = length * lambda_i / |update_i|`` with
    ``lambda = argmin |sum_i lambda_i * update_i / |update_i||^2`` over convex weights with
    ``|lambda_i - weights_i| <= epsilon``. The paper leaves the length to the server's step
    size; here it is the weighted mean of ``|update_i|``.

    Args:
        level: ``client``, as in the paper, or ``task``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`strategies.conflict.ConflictAware`.
        epsilon: in (0, 1]: near 0 averages the directions, 1 lets the weights move freely.

    Raises:
        UserError: an option is out of range.

    Paper: Hu et al., "Federated Learning Meets Multi-objective Optimization", 2020,
    https://arxiv.org/abs/2006.11489
    """

    omits = "a step length of the server's own, which decays"

    def __init__(
        self,
        level: str = "client",
        server_lr: float = 1.0,
        length: str = "own",
        epsilon: float = 0.1,
    ) -> None:
        super().__init__(level, server_lr, length)
        self.epsilon = number("epsilon", epsilon, above=0, most=1)

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length, cosines = unit(gram)
        inner, middle = cosines.numpy(), weights.numpy()

        def function(x: np.ndarray) -> tuple[float, np.ndarray]:
            slope = inner @ x
            return x @ slope / 2, slope

        low = np.maximum(middle - self.epsilon, 0)
        best = minimise(function, middle, low, np.minimum(middle + self.epsilon, 1))
        return weights @ length * torch.from_numpy(best) / length
