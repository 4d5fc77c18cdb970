"""How one client weighs the losses of its tasks: fixed, uncertainty, GradNorm or DWA.

A task without a label in a minibatch has no part in its loss: its weight and what its rule
remembers stay as they are, and the other tasks are compared with one another alone. So does a task
without a label in a round. In the papers every example has all labels.

What a rule remembers is private state of the client, ``[clients, ...]`` tensors under
``balance.``; it persists with the heads and never travels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedjoint.config.schema import BalanceConfig
from fedjoint.errors import choose
from fedjoint.model.tasks import Task

Tensors = dict[str, Tensor]


class Fixed:
    """``sum_t w_t * loss_t`` with the weights of the configuration, by default one each."""

    #: whether the rule needs the gradient of every task on its own
    separate = False
    #: names of the state that the optimiser trains
    trained: tuple[str, ...] = ()

    def __init__(self, config: BalanceConfig, tasks: Sequence[Task]):
        self.config = config
        self.tasks = tuple(tasks)

    def private(self) -> Tensors:
        """Return one client's fresh state."""
        return {}

    def weights(self, state: Tensors) -> Tensor:
        """Return the ``[tasks]`` weights of one client, from its state."""
        return torch.tensor([self.config.weights.get(t.name, 1.0) for t in self.tasks])

    def total(self, losses: Tensor, weights: Tensor, state: Tensors, known: Tensor) -> Tensor:
        """Combine one client's losses into what it minimises.

        Args:
            losses: ``[tasks]``, zero where the minibatch had no label of the task.
            weights: ``[tasks]``, see :meth:`weights`.
            state: the client's state.
            known: ``[tasks]``, how many labels the minibatch had.
        """
        return (weights * losses).sum()

    def after_step(self, norms: Tensor, losses: Tensor, state: Tensors) -> None:
        """Learn from a step; only called for ``separate`` rules.

        Args:
            norms: ``[clients, tasks]`` lengths of the tasks' gradients of the backbone.
            losses: ``[clients, tasks]``, NaN where the minibatch had no label of the task.
            state: the clients' state, changed in place.
        """

    def after_round(self, losses: Tensor, state: Tensors) -> None:
        """Learn from a round; state changes in place.

        Args:
            losses: ``[clients, tasks]`` mean losses, NaN where the round had no label of the task.
            state: the clients' state.
        """


class Uncertainty(Fixed):
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
        return torch.tensor([0.5 if t.kind == "regression" else 1.0 for t in self.tasks])

    def total(self, losses: Tensor, weights: Tensor, state: Tensors, known: Tensor) -> Tensor:
        s = state["balance.log_variance"]
        return (weights * torch.exp(-s) * losses + torch.where(known > 0, s / 2, 0)).sum()


class GradNorm(Fixed):
    """Weights under which the tasks' gradients have lengths in line with their training rates.

    One gradient step on ``sum_t |w_t * n_t - mean(w * n) * r_t^alpha|`` after every step of the
    model, the target held constant; then the weights are scaled to sum to the number of tasks.
    The gradients are those of the whole backbone. Sum and means are over the tasks that have a
    label in the minibatch; the weights of the others stay as they are.

    Paper: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks", ICML 2018, https://arxiv.org/abs/1711.02257
    """

    separate = True

    def private(self) -> Tensors:
        tasks = len(self.tasks)
        return {
            "balance.weights": torch.ones(tasks),
            "balance.first_losses": torch.full((tasks,), float("nan")),
        }

    def weights(self, state: Tensors) -> Tensor:
        return state["balance.weights"]

    def after_step(self, norms: Tensor, losses: Tensor, state: Tensors) -> None:
        weights, first = state["balance.weights"], state["balance.first_losses"]
        first.copy_(torch.where(first.isnan() & (losses > 0), losses, first))
        there = ~(first.isnan() | losses.isnan())
        count = there.sum(-1, keepdim=True).clamp(min=1)
        rate = torch.where(there, losses / first, 0)
        rate = rate / (rate.sum(-1, keepdim=True) / count).clamp(min=1e-12)
        lengths = torch.where(there, weights * norms, 0)
        target = lengths.sum(-1, keepdim=True) / count * rate**self.config.alpha
        moved = weights - self.config.lr * torch.sign(lengths - target) * norms
        moved = torch.where(there, moved.clamp(min=1e-3), 0)
        left = len(self.tasks) - torch.where(there, 0, weights).sum(-1, keepdim=True)
        weights.copy_(torch.where(there, moved * left / moved.sum(-1, keepdim=True), weights))


class DWA(Fixed):
    """Dynamic weight averaging: tasks whose loss falls slowest weigh most.

    ``w = tasks * softmax(ratio / temperature)``, the ratio of a task's mean losses of the last two
    rounds that had a label of it; 1 until there are two.

    Paper: Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
    https://arxiv.org/abs/1803.10704
    """

    def private(self) -> Tensors:
        return {"balance.history": torch.full((2, len(self.tasks)), float("nan"))}

    def weights(self, state: Tensors) -> Tensor:
        before, last = state["balance.history"].unbind(0)
        ratio = last / before.clamp(min=1e-12)
        ratio = torch.where(ratio.isnan(), torch.ones_like(ratio), ratio)
        return len(self.tasks) * torch.softmax(ratio / self.config.temperature, 0)

    def after_round(self, losses: Tensor, state: Tensors) -> None:
        history = state["balance.history"]
        moved = torch.stack([history[:, 1], losses], 1)
        history.copy_(torch.where(losses.isnan()[:, None], history, moved))


RULES = {"fixed": Fixed, "uncertainty": Uncertainty, "gradnorm": GradNorm, "dwa": DWA}


def make_balance(config: BalanceConfig, tasks: Sequence[Task], known: Sequence[str]) -> Fixed:
    """Return the rule for a client with ``tasks``; ``known`` are the names of all tasks.

    Raises:
        UserError: a weight names no task.
    """
    for name in config.weights:
        if name not in known:
            raise choose("task in balance.weights", name, known)
    return RULES[config.name](config, tasks)
