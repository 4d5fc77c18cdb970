"""MGDA: the shortest convex combination of the updates."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from ._conflict import ConflictAware
from ._cosines import root, unit


class MGDA(ConflictAware):
    """Multiple gradient descent: ``c = argmin |sum_i c_i * update_i|^2`` over convex weights.

    If the shortest combination is not zero, the step has an inner product of at least its
    squared length with every update ``[P]``: no client is harmed, to first order. Weights play
    no part.

    Solved exactly: ``x >= 0`` that minimises ``|sum_i x_i * update_i|^2 + (sum_i x_i - 1)^2``
    is a multiple of c, and non-negative least squares finds it with an active set. Lengths are
    in units of the shortest update, as the step is no longer than that.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.

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
