"""How the tasks of one client pull at the shared backbone: their gradients, and how these agree.

Clients send one update for all of their tasks, in which it cannot be seen whether these agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap

from fedjoint.model.joint import JointModel
from fedjoint.model.mode import evaluating
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, alone
from fedjoint.training.gradients import make_forward

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

    def by_program(weights: Tensors, x: Input, y: Tensors) -> tuple[Tensors, Tensor, Tensor]:
        trained, rest = _divided(weights, shared)

        def losses_of(trained: Tensors) -> tuple[Tensor, Tensor]:
            return forward({**trained, **rest}, x, y)

        # A pass backward for each task, and not one vmapped over tasks: models that are trained
        # batched need not support that.
        sums, backward, known = vjp(losses_of, trained, has_aux=True)  # type: ignore[misc]
        rows = [backward(one)[0] for one in torch.eye(len(tasks)).to(sums)]
        return {n: torch.stack([row[n] for row in rows]) for n in trained}, sums, known

    def one_client(weights: Tensors, x: Input, y: Tensors) -> tuple[Tensors, Tensor, Tensor]:
        trained, rest = _divided({n: t[0].detach().clone() for n, t in weights.items()}, shared)
        trained = {n: t.requires_grad_() for n, t in trained.items()}
        sums, known = forward({**trained, **rest}, alone(x), alone(y))
        rows = [
            torch.autograd.grad(
                loss, list(trained.values()), retain_graph=True, materialize_grads=True
            )
            for loss in sums
        ]
        by_name = zip(trained, zip(*rows, strict=True), strict=True)
        return {name: torch.stack(of)[None] for name, of in by_name}, sums[None], known[None]

    several = vmap(by_program, randomness="different") if batched else one_client

    def differentiate(weights: Tensors, x: Input, y: Tensors) -> TaskGradients:
        with evaluating(model):
            of, sums, known = several(weights, x, y)
        return TaskGradients({n: g.detach() for n, g in of.items()}, sums.detach(), known)

    return differentiate


def inner_products(gradients: Tensors) -> Tensor:
    """Return ``[clients, tasks, tasks]`` float64 of gradients ``[clients, tasks, ...]``."""
    parts = (g.flatten(2).double() for g in gradients.values())
    return torch.stack([part @ part.mT for part in parts]).sum(0)


def _divided(weights: Tensors, shared: Collection[str]) -> tuple[Tensors, Tensors]:
    trained = {n: t for n, t in weights.items() if n in shared}
    return trained, {n: t for n, t in weights.items() if n not in shared}
