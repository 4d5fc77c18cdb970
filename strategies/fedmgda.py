"""FedMGDA+: MGDA on updates of unit length, with weights near the clients' own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.convex import minimise
from fedjoint.options import Positive, Share

from ._conflict import ConflictAware, Length, Level
from ._cosines import unit


class FedMGDA(ConflictAware):
    """MGDA on updates of unit length, with weights near the clients' own.

    ``c_i = length * lambda_i / |update_i|`` with
    ``lambda = argmin |sum_i lambda_i * update_i / |update_i||^2`` over convex weights with
    ``|lambda_i - weights_i| <= epsilon``. The paper leaves the length to the server's step
    size; here it is the weighted mean of ``|update_i|``.

    Args:
        level: ``client``, as in the paper, ``task`` or ``task_mean``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.
        epsilon: in (0, 1]: near 0 averages the directions, 1 lets the weights move freely.

    Paper: Hu et al., "Federated Learning Meets Multi-objective Optimization", 2020,
    https://arxiv.org/abs/2006.11489
    """

    omits = "a step length of the server's own, which decays"

    def __init__(
        self,
        level: Level = "client",
        server_lr: Positive = 1.0,
        length: Length = "own",
        epsilon: Share = 0.1,
    ) -> None:
        super().__init__(level, server_lr, length)
        self.epsilon = epsilon

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        length, cosines = unit(gram)
        inner, middle = cosines.numpy(), weights.numpy()

        def function(x: np.ndarray) -> tuple[float, np.ndarray]:
            slope = inner @ x
            return x @ slope / 2, slope

        low = np.maximum(middle - self.epsilon, 0)
        best = minimise(function, middle, low, np.minimum(middle + self.epsilon, 1))
        return weights @ length * torch.from_numpy(best) / length
