"""How the tasks of one client pull at the shared backbone: the Gram matrix of their gradients.

Clients send one update for all of their tasks, in which it cannot be seen whether these agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.training.gradients import make_forward

Tensors = dict[str, Tensor]

#: (weights, x, y), each stacked over clients -> ``[clients, tasks, tasks]``
Within = Callable[[Tensors, Tensor, Tensors], Tensor]


def make_within(
    model: JointModel,
    tasks: Sequence[Task],
    shared: Collection[str],
    *,
    batched: bool,
    precision: str,
) -> Within:
    """Return what gives ``<gradient of task s, gradient of task t>`` for every client.

    The gradients are those of the tasks' mean losses by the parameters ``shared``, in evaluation
    mode, without the weights that a balance gives the tasks. A task without labels has a gradient
    of zero.

    Args:
        model: its modules say what is computed; its own weights are never used.
        tasks: the clients' tasks.
        shared: names of the shared parameters that are trained.
        batched: all clients in one batched program. If not, the function takes one client.
        precision: ``float32``, or ``bfloat16`` for autocast.
    """
    forward = make_forward(model, tasks, precision)

    def losses_of(trained: Tensors, rest: Tensors, x: Tensor, y: Tensors) -> Tensor:
        sums, known = forward({**trained, **rest}, x, y)
        return sums / known.clamp(min=1)

    def by_program(weights: Tensors, x: Tensor, y: Tensors) -> Tensor:
        trained, rest = _divided(weights, shared)
        each = jacrev(losses_of)(trained, rest, x, y)
        return _gram([g.flatten(1) for g in each.values()])

    def alone(weights: Tensors, x: Tensor, y: Tensors) -> Tensor:
        trained, rest = _divided({n: t[0].detach().clone() for n, t in weights.items()}, shared)
        trained = {n: t.requires_grad_() for n, t in trained.items()}
        losses = losses_of(trained, rest, x[0], {n: labels[0] for n, labels in y.items()})
        rows = []
        for loss in losses:
            of = torch.autograd.grad(
                loss, list(trained.values()), retain_graph=True, materialize_grads=True
            )
            rows.append(torch.cat([g.flatten() for g in of]))
        return _gram([torch.stack(rows)])[None]

    several = vmap(by_program, randomness="different") if batched else alone

    def within(weights: Tensors, x: Tensor, y: Tensors) -> Tensor:
        model.eval()
        try:
            return several(weights, x, y).detach()
        finally:
            model.train()

    return within


def _divided(weights: Tensors, shared: Collection[str]) -> tuple[Tensors, Tensors]:
    trained = {n: t for n, t in weights.items() if n in shared}
    return trained, {n: t for n, t in weights.items() if n not in shared}


def _gram(parts: Sequence[Tensor]) -> Tensor:
    """Return ``[tasks, tasks]`` float64 from the columns ``[tasks, k]`` of the gradients."""
    doubled = [part.double() for part in parts]
    return torch.stack([part @ part.T for part in doubled]).sum(0)
