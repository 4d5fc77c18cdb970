"""What clients' models compute, and a term of their loss beside those of their tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fedjoint.errors import UserError
from fedjoint.model.holding import holding
from fedjoint.model.joint import JointModel
from fedjoint.model.mode import evaluating
from fedjoint.model.tree import Input, alone, each, first
from fedjoint.training.gradients import passes

Tensors = dict[str, Tensor]

#: (the joint model's weights by name, inputs ``[n, ...]``) of one client
Compute = Callable[[Tensors, Input], Tensor]

#: (weights, inputs, whatever else the term is of) of one client -> a number
Term = Callable[[Tensors, Input, Tensors], Tensor]


def features_of(model: JointModel) -> Compute:
    """Return what computes the backbone's features ``[n, features]``.

    It raises a UserError where these are no vectors.
    """
    own = set(model.state_dict())

    def features(weights: Tensors, x: Input) -> Tensor:
        body = {n: t for n, t in weights.items() if n in own}
        found: object = holding(model, body, lambda: model.backbone(x))
        if not isinstance(found, Tensor) or found.ndim != 2:
            form = list(found.shape[1:]) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"it needs a vector of features for each example, and the backbone makes {form}: "
                "end it in a vector, or take another strategy"
            )
        return found.float()

    return features


def outputs_of(model: JointModel, task: str) -> Compute:
    """Return what computes the outputs ``[n, outputs]`` of a task's head."""
    own = set(model.state_dict())

    def outputs(weights: Tensors, x: Input) -> Tensor:
        known = {n: t for n, t in weights.items() if n in own}
        found: Tensor = functional_call(model, known, (x, [task]))[task]
        return found.float()

    return outputs


def computed(
    compute: Compute,
    model: JointModel,
    weights: Tensors,
    x: Input,
    *,
    batched: bool,
    rows: int,
    least: int = 1,
) -> Tensor:
    """``[clients, n, ...]``, what every client's model computes in evaluation mode.

    Args:
        compute: of one client.
        model: its modules say what is computed.
        weights: name -> ``[clients, ...]``.
        x: ``[clients, n, ...]`` inputs.
        batched: all clients in one batched program. If not, there is one client.
        rows: examples per client and pass.
        least: fewest examples that the model takes.
    """
    several = vmap(compute, randomness="different") if batched else _alone(compute)
    with evaluating(model), torch.no_grad():
        count = first(x).shape[1]
        parts = [several(weights, _rows(x, at)) for at in passes(count, rows, least)]
        return torch.cat(parts, 1)


def _alone(compute: Compute) -> Compute:
    return lambda weights, x: compute(alone(weights), alone(x))[None]


def _rows(x: Input, at: slice) -> Input:
    """Return some of every client's inputs."""
    found: Input = each(lambda tensor: tensor[:, at], x)
    return found


def make_term(
    term: Term, model: JointModel, *, batched: bool, evaluating: bool = False
) -> Callable[[Tensors, Tensors, Input, Tensors], Tensors]:
    """Return what differentiates ``term`` for every client by what is trained.

    It takes (trained, frozen, x, further), each stacked over clients, and returns gradients by
    name. Buffers stay as they are.

    Args:
        term: of one client.
        model: its modules say what is computed.
        batched: all clients in one batched program. If not, there is one client.
        evaluating: compute in evaluation mode, without dropout.
    """

    def one(trained: Tensors, frozen: Tensors, x: Input, further: Tensors) -> Tensor:
        return term({**trained, **frozen}, x, further)

    def one_client(trained: Tensors, frozen: Tensors, x: Input, further: Tensors) -> Tensors:
        own = {n: t[0].detach().requires_grad_() for n, t in trained.items()}
        rest = {n: t[0].detach().clone() for n, t in frozen.items()}
        value = one(own, rest, alone(x), alone(further))
        found = torch.autograd.grad(value, list(own.values()), materialize_grads=True)
        return {n: g[None] for n, g in zip(own, found, strict=True)}

    several = vmap(grad(one), randomness="different") if batched else one_client

    def gradients(trained: Tensors, frozen: Tensors, x: Input, further: Tensors) -> Tensors:
        model.train(not evaluating)
        try:
            return several(trained, frozen, x, further)
        finally:
            model.train()

    return gradients


def for_all(tensors: Tensors, clients: int) -> Tensors:
    """Return ``tensors`` as if each of ``clients`` had them; memory is shared."""
    return {n: t.expand(clients, *t.shape) for n, t in tensors.items()}


def rest_of(weights: Tensors, trained: Sequence[str] | Tensors) -> Tensors:
    """Return the weights that are not trained."""
    return {n: t for n, t in weights.items() if n not in trained}
