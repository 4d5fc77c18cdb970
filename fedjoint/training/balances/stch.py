"""STCH: smooth Tchebycheff scalarisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedjoint.model.tasks import Task
from fedjoint.training.balance import Balance, Tensors

Smoothing = Annotated[float, Field(ge=1e-3, le=1e6)]


class STCH(Balance):
    """The largest loss, smoothed: ``tasks * mu * log sum_t exp(loss_t / mu)``.

    Its gradient weighs the tasks by ``tasks * softmax(losses / mu)``, over those that have a label
    in the minibatch: all alike where mu is large, the largest loss alone where it is small.

    Args:
        tasks: the client's.
        mu: the paper's smoothing.

    Paper: Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML
    2024, https://arxiv.org/abs/2402.19078
    """

    omits = "preferences, and an ideal point other than zero"

    def __init__(self, tasks: Sequence[Task], mu: Smoothing = 1.0) -> None:
        super().__init__(tasks)
        self.mu = mu

    def total(self, losses: Tensor, weights: Tensor, state: Tensors, known: Tensor) -> Tensor:
        # As good as minus infinity, of which a minibatch without any label would make NaN.
        absent = torch.finfo(losses.dtype).min / 2
        shares = torch.where(known > 0, losses / self.mu, absent)
        return len(self.tasks) * self.mu * torch.logsumexp(shares, 0)
