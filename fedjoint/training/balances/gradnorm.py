"""GradNorm: weights that balance the lengths of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedjoint.model.tasks import Task
from fedjoint.options import Positive
from fedjoint.training.balance import Balance, Tensors

#: Powers of the training rates, which beyond it are zero or infinite in float32.
Restoring = Annotated[float, Field(ge=0, le=10)]


class GradNorm(Balance):
    """Weights under which the tasks' gradients have lengths in line with their training rates.

    One gradient step on ``sum_t |w_t * n_t - mean(w * n) * r_t^alpha|`` after every step of the
    model, the target held constant; then the weights are scaled to sum to the number of tasks.
    The gradients are those of the whole backbone. Sum and means are over the tasks that have a
    label in the minibatch; the weights of the others stay as they are.

    Args:
        tasks: the client's.
        alpha: the paper's restoring force, in [0, 10].
        lr: learning rate of the weights.

    Paper: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks", ICML 2018, https://arxiv.org/abs/1711.02257
    """

    separate = True

    def __init__(self, tasks: Sequence[Task], alpha: Restoring = 1.5, lr: Positive = 0.025) -> None:
        super().__init__(tasks)
        self.alpha = alpha
        self.lr = lr

    def private(self) -> Tensors:
        tasks = len(self.tasks)
        return {
            "balance.weights": torch.ones(tasks),
            "balance.first_losses": torch.full((tasks,), float("nan")),
        }

    def weights(self, state: Tensors) -> Tensor:
        return state["balance.weights"]

    def after_step(self, norms: Tensor | None, losses: Tensor, state: Tensors) -> None:
        assert norms is not None  # the rule is separate
        weights, first = state["balance.weights"], state["balance.first_losses"]
        first.copy_(torch.where(first.isnan() & (losses > 0), losses, first))
        there = ~(first.isnan() | losses.isnan())
        count = there.sum(-1, keepdim=True).clamp(min=1)
        rate = torch.where(there, losses / first, 0)
        rate = rate / (rate.sum(-1, keepdim=True) / count).clamp(min=1e-12)
        lengths = torch.where(there, weights * norms, 0)
        target = lengths.sum(-1, keepdim=True) / count * rate**self.alpha
        moved = weights - self.lr * torch.sign(lengths - target) * norms
        moved = torch.where(there, moved.clamp(min=1e-3), 0)
        left = len(self.tasks) - torch.where(there, 0, weights).sum(-1, keepdim=True)
        weights.copy_(torch.where(there, moved * left / moved.sum(-1, keepdim=True), weights))
