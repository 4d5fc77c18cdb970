"""UPGrad: every update is projected to where it opposes none, and the projections are averaged."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from ._conflict import ConflictAware
from ._cosines import root, unit


class UPGrad(ConflictAware):
    """Jacobian descent: ``step = sum_i weights_i * projected_i``.

    ``projected_i`` is the point nearest to update i ``[P]`` whose inner products with all updates
    are zero or more. So the step opposes no update, and without conflicts it is that of FedAvg.

    Solved exactly: ``projected_i = update_i + sum_j x_j * update_j`` with ``x >= 0``, and x makes
    that shortest, which non-negative least squares finds with an active set.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.

    Paper: Quinton and Rey, "Jacobian Descent For Multi-Objective Optimization", 2024,
    https://arxiv.org/abs/2406.16232
    """

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        # In units of each update's own length, so that short ones are as precise as long ones.
        length, cosines = unit(gram)
        directions = root(cosines).numpy()
        moved = np.array([nnls(directions, -column)[0] for column in directions.T])
        combination = np.eye(len(moved)) + moved
        return torch.from_numpy((weights * length).numpy() @ combination) / length
