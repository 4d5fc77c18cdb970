"""Weights by homoscedastic uncertainty."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.training.balance import Balance, Tensors


class Uncertainty(Balance):
    """Homoscedastic uncertainty: the log variances s_t are trained beside the model.

    ``sum_t c_t * exp(-s_t) * loss_t + s_t / 2`` with c = 1/2 for regression, 1 otherwise, over the
    tasks t that have a label in the minibatch.

    Paper: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics", CVPR 2018, https://arxiv.org/abs/1705.07115
    """

    trained = ("balance.log_variance",)

    def private(self) -> Tensors:
        return {"balance.log_variance": torch.zeros(len(self.tasks))}

    def weights(self, state: Tensors) -> Tensor:
        return torch.tensor([0.5 if t.form.scaled else 1.0 for t in self.tasks])

    def total(self, losses: Tensor, weights: Tensor, state: Tensors, known: Tensor) -> Tensor:
        s = state["balance.log_variance"]
        return (weights * torch.exp(-s) * losses + torch.where(known > 0, s / 2, 0)).sum()
