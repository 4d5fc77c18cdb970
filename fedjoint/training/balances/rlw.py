"""RLW: random weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.training.balance import Balance, Tensors


class RLW(Balance):
    """Random loss weighting: ``w = tasks * softmax(normal numbers)``, drawn anew after every step.

    A client's very first step has weights of one. A task without a label in a minibatch keeps its
    number.

    Paper: Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
    Learning", TMLR 2022, https://arxiv.org/abs/2111.10603
    """

    each_step = True

    def private(self) -> Tensors:
        return {"balance.drawn": torch.zeros(len(self.tasks))}

    def weights(self, state: Tensors) -> Tensor:
        return len(self.tasks) * torch.softmax(state["balance.drawn"], 0)

    def after_step(self, norms: Tensor | None, losses: Tensor, state: Tensors) -> None:
        drawn = state["balance.drawn"]
        drawn.copy_(torch.where(losses.isnan(), drawn, torch.randn_like(drawn)))
