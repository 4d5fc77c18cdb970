"""How the tasks of one client pull at the shared backbone: their gradients, and how these agree.

Clients send one update for all of their tasks, in which it cannot be seen whether these agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedjoint.model.joint import JointModel
from fedjoint.model.mode import evaluating
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input
from fedjoint.training.gradients import by_task, make_forward, of_clients

Tensors = dict[str, Tensor]


class TaskGradients(NamedTuple):
    """The gradients of every task on its own, for some clients, over some of their examples.

    Attributes:
        of: parameter name -> ``[clients, tasks, ...]`` gradients of the tasks' summed losses.
        sums: ``[clients, tasks]`` these sums.
        known: ``[clients, tasks]`` labels in them.
    """

    of: Tensors
    sums: Tensor
    known: Tensor

    def __add__(self, other: TaskGradients) -> TaskGradients:  # type: ignore[override]
        """Return those over the examples of both."""
        of = {name: g + other.of[name] for name, g in self.of.items()}
        return TaskGradients(of, self.sums + other.sums, self.known + other.known)

    def mean(self) -> tuple[Tensors, Tensor]:
        """Return the gradients of the tasks' mean losses, zero without labels; and the losses."""
        count = self.known.clamp(min=1)
        of = {n: g / count.view(*count.shape, *(1,) * (g.ndim - 2)) for n, g in self.of.items()}
        return of, self.sums / count


#: (weights, x, y), each stacked over clients
Differentiate = Callable[[Tensors, Input, Tensors], TaskGradients]


def make_differentiate(
    model: JointModel,
    tasks: Sequence[Task],
    shared: Collection[str],
    *,
    batched: bool,
    precision: str,
) -> Differentiate:
    """Return what differentiates every task's loss on its own, for every client.

    The gradients are by the parameters ``shared``, in evaluation mode, without the weights that a
    balance gives the tasks.

    Args:
        model: its modules say what is computed; its own weights are never used.
        tasks: the clients' tasks.
        shared: names of the shared parameters that are trained.
        batched: all clients in one batched program. If not, the function takes one client.
        precision: ``float32``, or ``bfloat16`` for autocast.
    """
    forward = make_forward(model, tasks, precision, batched=batched)
    several = of_clients(forward, batched=batched)

    def differentiate(weights: Tensors, x: Input, y: Tensors) -> TaskGradients:
        if not batched:  # a module may write into its buffers
            weights = {n: t.detach().clone() for n, t in weights.items()}
        with evaluating(model), torch.enable_grad():
            own = {n: t.detach().requires_grad_() for n, t in weights.items() if n in shared}
            sums, known = several({**weights, **own}, x, y)
            of = by_task(sums.sum(0), own, dim=1)
        return TaskGradients(of, sums.detach(), known)

    return differentiate


def inner_products(gradients: Tensors) -> Tensor:
    """Return ``[clients, tasks, tasks]`` float64 of gradients ``[clients, tasks, ...]``."""
    parts = (g.flatten(2).double() for g in gradients.values())
    return torch.stack([part @ part.mT for part in parts]).sum(0)
