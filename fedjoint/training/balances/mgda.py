"""MGDA within a client's step."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.training.balance import Balance
from fedjoint.training.balances._descent import non_negative


class MGDA(Balance):
    """Multiple gradient descent: the shortest convex combination of the tasks' gradients.

    The step descends ``tasks * sum_t c_t * gradient_t`` of the backbone, with
    ``c = argmin |sum_t c_t * gradient_t|^2`` over convex weights of the tasks that have a label in
    the minibatch: a multiple of the ``x >= 0`` that minimises that square and
    ``(sum_t x_t - 1)^2`` together. Between clients or tasks it is the strategy of that name.

    Paper: Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018,
    https://arxiv.org/abs/1810.04650
    """

    omits = "the bound by features in place of the backbone's gradients (MGDA-UB)"
    separate = resolves = True

    def resolve(self, gram: Tensor) -> Tensor:
        square = gram.diagonal()
        there = (square > 0).to(gram)
        # In units of the shortest gradient: the result is no longer than that.
        shortest = torch.where(square > 0, square, torch.inf).amin()
        matrix = gram / shortest + there * there[:, None]
        (x,) = non_negative(matrix, there[None])
        return len(self.tasks) * x / x.sum().clamp(min=torch.finfo(x.dtype).tiny)
