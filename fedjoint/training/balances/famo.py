"""FAMO: weights under which all losses fall equally fast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedjoint.model.tasks import Task
from fedjoint.options import NotNegative, Positive
from fedjoint.training.balance import Balance, Tensors

_LEAST = 1e-8  # of a loss, for its logarithm


class FAMO(Balance):
    """Fast adaptive multitask optimisation.

    A step descends ``c * sum_t z_t * log loss_t`` with ``z = softmax(logits)``, c such that the
    weights of the losses themselves, ``c * z_t / loss_t``, sum to the number of tasks. Then the
    logits learn from by how much each log loss fell, ``fall`` ``[tasks]``: ``logits -= lr *
    (z * (fall - z @ fall) + gamma * logits)``, so that the task that falls least gains weight.
    All of it is over the tasks that have a label in the minibatch.

    Args:
        tasks: the client's.
        lr: learning rate of the logits, the paper's beta.
        gamma: decay of the logits.

    Paper: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023,
    https://arxiv.org/abs/2306.03792
    """

    omits = "losses before and after a step are those of two minibatches, not of one"
    each_step = True

    def __init__(
        self, tasks: Sequence[Task], lr: Positive = 0.025, gamma: NotNegative = 0.001
    ) -> None:
        super().__init__(tasks)
        self.lr = lr
        self.gamma = gamma

    def private(self) -> Tensors:
        tasks = len(self.tasks)
        return {
            "balance.logits": torch.zeros(tasks),
            "balance.log_losses": torch.full((tasks,), float("nan")),
        }

    def weights(self, state: Tensors) -> Tensor:
        return torch.softmax(state["balance.logits"], 0)

    def total(self, losses: Tensor, weights: Tensor, state: Tensors, known: Tensor) -> Tensor:
        there = known > 0
        losses = torch.where(there, losses.clamp(min=_LEAST), 1)
        weights = torch.where(there, weights, 0)
        slopes = (weights / losses).sum().clamp(min=_LEAST).detach()
        return there.sum() / slopes * (weights * losses.log()).sum()

    def after_step(self, norms: Tensor | None, losses: Tensor, state: Tensors) -> None:
        logits, before = state["balance.logits"], state["balance.log_losses"]
        now = losses.clamp(min=_LEAST).log()
        there = ~(now.isnan() | before.isnan())
        fall = torch.where(there, before - now, 0)
        z = torch.where(there, logits, -torch.inf).softmax(-1).nan_to_num()
        slope = z * (fall - (z * fall).sum(-1, keepdim=True)) + self.gamma * logits
        logits.sub_(self.lr * torch.where(there, slope, 0))
        before.copy_(torch.where(now.isnan(), before, now))
