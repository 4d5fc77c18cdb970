"""Gradients and losses of many clients at once: one ``vmap`` over stacked parameters, or a loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fedjoint.config.schema import LocalConfig
from fedjoint.errors import UserError
from fedjoint.model.joint import JointModel
from fedjoint.model.loss import plainly_summed, summed
from fedjoint.model.mode import evaluating
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, alone, first
from fedjoint.training.alone import Alone
from fedjoint.training.attention import batchable, unfused
from fedjoint.training.balance import Balance
from fedjoint.training.cohort import Stack
from fedjoint.training.descent import Descent
from fedjoint.training.replay import replayed
from fedjoint.training.trace import functional
from fedjoint.training.traced import Traced

Tensors = dict[str, Tensor]


class Gradients(NamedTuple):
    """What one step of every client yields.

    Attributes:
        of: parameter name -> ``[clients, ...]`` gradient of the combined loss.
        losses: ``[clients, tasks]`` mean losses of the batch.
        norms: ``[clients, tasks]`` lengths of the tasks' gradients of the backbone, for rules
            that balance by them; else None.
    """

    of: Tensors
    losses: Tensor
    norms: Tensor | None


#: (trained, frozen, x, y, task weights), each stacked over clients -> gradients
Kernel = Callable[[Tensors, Tensors, Input, Tensors, Tensor], Gradients]

#: (weights, examples), each stacked over clients -> ``[clients, tasks]`` mean losses
Measure = Callable[[Tensors, Stack], Tensor]

#: (weights, x, y) of one client -> ``[tasks]`` summed losses, ``[tasks]`` labels known
Forward = Callable[[Tensors, Input, Tensors], tuple[Tensor, Tensor]]


def make_forward(
    model: JointModel, tasks: Sequence[Task], precision: str, *, batched: bool
) -> Forward:
    """Return the function that sums one client's losses.

    It ignores weights that are no part of ``model``, so that clients may keep other state beside
    them.
    """
    own = set(model.state_dict())
    losses_of = _make_losses_of(tasks, precision, batched=batched)

    def forward(weights: Tensors, x: Input, y: Tensors) -> tuple[Tensor, Tensor]:
        held = {n: t for n, t in weights.items() if n in own}
        # The compiler stops at what this does: what it compiles is called under unfused instead.
        rewrites = batched and not torch.compiler.is_compiling()
        with batchable(first(x).device) if rewrites else nullcontext():
            return losses_of(lambda *inputs: functional_call(model, held, inputs), x, y)

    return forward


def of_clients(forward: Forward, *, batched: bool) -> Forward:
    """Return ``forward`` of what is stacked over clients; of one client, where not ``batched``."""

    def of_one(weights: Tensors, x: Input, y: Tensors) -> tuple[Tensor, Tensor]:
        sums, known = forward(alone(weights), alone(x), alone(y))
        return sums[None], known[None]

    return vmap(forward, randomness="different") if batched else of_one


def _make_losses_of(
    tasks: Sequence[Task], precision: str, *, batched: bool
) -> Callable[[Callable[..., Tensors], Input, Tensors], tuple[Tensor, Tensor]]:
    """Return what sums the losses of a model, which is called with inputs and names of tasks."""
    losses = {task.name: task.loss_fn for task in tasks}
    total = plainly_summed if batched else summed  # vmap takes a loss's own way apart
    lower = precision == "bfloat16"

    def losses_of(model: Callable[..., Tensors], x: Input, y: Tensors) -> tuple[Tensor, Tensor]:
        with torch.autocast(first(x).device.type, torch.bfloat16) if lower else nullcontext():
            outputs = model(x, list(losses))
        found = [total(loss, outputs[name].float(), y[name]) for name, loss in losses.items()]
        sums, known = zip(*found, strict=True)
        return torch.stack(sums), torch.stack(known)

    return losses_of


def passes(rows: int, most: int, least: int = 1) -> list[slice]:
    """Divide ``rows`` examples into passes of ``most``; a last one that is too short joins another.

    Args:
        rows: examples of a client.
        most: examples in one pass.
        least: fewest examples that the model takes, at most ``most``.

    Raises:
        UserError: there are fewer than ``least`` examples, but some.
    """
    if 0 < rows < least:
        raise UserError(
            f"it has {rows} example in a split, and the model evaluates no fewer than {least} at "
            "once: give it more, or use a model that takes examples one by one"
        )
    starts = list(range(0, rows, most))
    if starts and rows - starts[-1] < least:
        starts.pop()
    return [slice(*ends) for ends in itertools.pairwise([*starts, rows])]


def make_measure(
    model: JointModel,
    tasks: Sequence[Task],
    *,
    batched: bool,
    precision: str,
    rows: int,
    least: int = 1,
) -> Measure:
    """Return the function that measures every client's losses, in evaluation mode.

    Args:
        model: its modules say what is computed; its own weights are never used.
        tasks: the clients' tasks.
        batched: all clients in one batched program. If not, the function takes one client.
        precision: ``float32``, or ``bfloat16`` for autocast.
        rows: examples per client and pass.
        least: fewest examples that the model takes.
    """
    forward = make_forward(model, tasks, precision, batched=batched)
    several = of_clients(forward, batched=batched)

    @torch.no_grad()
    def measure(weights: Tensors, examples: Stack) -> Tensor:
        examples = examples if batched else examples.alone
        # Evaluation mode leaves BatchNorm's statistics, which are part of the weights, alone.
        with evaluating(model):
            parts = [
                several(weights, *examples.at(at)) for at in passes(examples.rows, rows, least)
            ]
        if not parts:
            return torch.zeros(1, len(tasks), device=next(iter(weights.values())).device)
        sums, known = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
        return sums / known.clamp(min=1)

    return measure


def _make_losses(
    model: JointModel, balance: Balance, precision: str, *, batched: bool
) -> Callable[[Tensors, Tensors, Input, Tensors], tuple[Tensor, Tensor]]:
    forward = make_forward(model, balance.tasks, precision, batched=batched)

    def losses(trained: Tensors, frozen: Tensors, x: Input, y: Tensors) -> tuple[Tensor, Tensor]:
        sums, known = forward({**trained, **frozen}, x, y)
        return sums / known.clamp(min=1), known

    return losses


def _make_objective(
    model: JointModel, balance: Balance, precision: str, *, batched: bool
) -> Callable[[Tensors, Tensors, Input, Tensors, Tensor], tuple[Tensor, Tensor]]:
    losses_of = _make_losses(model, balance, precision, batched=batched)

    def objective(
        trained: Tensors, frozen: Tensors, x: Input, y: Tensors, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses, known = losses_of(trained, frozen, x, y)
        return balance.total(losses, weights, {**trained, **frozen}, known), losses.detach()

    return objective


def make_descent(
    model: JointModel,
    balance: Balance,
    local: LocalConfig,
    how: Literal["batched", "sequential", "traced"],
    *,
    channels_last: bool,
) -> Descent | Traced | Alone | None:
    """Return what takes the optimiser's steps at once, or None where nothing does.

    Args:
        model: draws no random numbers, and where it is batched or traced, it treats every example
            of a minibatch for itself; its own weights are never used.
        balance: combines the losses of the tasks.
        local: the rule and the precision.
        how: see ``local.path``; all but ``batched`` take one client.
        channels_last: keep the channels of one client's images last.
    """
    # The weights of tasks that move must be found anew before every step.
    if local.optimiser.name != "sgd" or balance.separate or balance.private():
        return None
    if how == "sequential":
        return _lean(model, balance, local, channels_last=channels_last)
    objective = _make_objective(model, balance, local.precision, batched=how == "batched")
    program = _differentiated(objective, batched=how == "batched")
    if how == "batched":
        return Descent(program, local.optimiser)
    last = _lean(model, balance, local, channels_last=True) if channels_last else None
    return Traced(program, local.optimiser, last)


def _lean(model: JointModel, balance: Balance, local: LocalConfig, *, channels_last: bool) -> Alone:
    losses_of = _make_losses_of(balance.tasks, local.precision, batched=False)

    def held(state: Tensors, x: Input, y: Tensors, weights: Tensor) -> tuple[Tensor, Tensor]:
        sums, known = losses_of(model, x, y)
        losses = sums / known.clamp(min=1)
        return balance.total(losses, weights, state, known), losses.detach()

    return Alone(model, held, local.optimiser, channels_last=channels_last)


def make_kernel(
    model: JointModel,
    balance: Balance,
    *,
    batched: bool,
    precision: str,
    compiled: bool = False,
    traced: bool = True,
) -> Kernel:
    """Return the function that computes every client's gradients.

    Args:
        model: its modules say what is computed; its own weights are never used.
        balance: combines the losses of the tasks.
        batched: all clients in one batched program. If not, the kernel takes one client.
        precision: ``float32``, or ``bfloat16`` for autocast.
        compiled: ``torch.compile`` the batched program.
        traced: replay it from a trace, where it is not compiled.
    """
    if not batched:
        return _of_one_client(model, balance, precision)
    objective = _make_objective(model, balance, precision, batched=True)
    if balance.separate:
        losses_of = _make_losses(model, balance, precision, batched=True)
        program = _separately(vmap(losses_of, randomness="different"), balance)
    elif compiled:
        program = _inside(objective, batched=True)
    else:
        program = _differentiated(objective, batched=True)
    if compiled:
        program = torch.compile(program)
    elif traced:
        program = replayed(program)

    def all_clients(
        trained: Tensors, frozen: Tensors, x: Input, y: Tensors, weights: Tensor
    ) -> Gradients:
        with unfused(weights.device) if compiled else nullcontext():
            of, *norms, losses = program(trained, frozen, x, y, weights)
        return Gradients(of, losses, norms[0] if norms else None)

    return all_clients


def _of_one_client(model: JointModel, balance: Balance, precision: str) -> Kernel:
    losses_of = _make_losses(model, balance, precision, batched=False)
    objective = _make_objective(model, balance, precision, batched=False)

    def one_client(
        trained: Tensors, frozen: Tensors, x: Input, y: Tensors, weights: Tensor
    ) -> Gradients:
        # functional_call writes BatchNorm's statistics into these views of the stacked state.
        one = {n: t[0].detach().requires_grad_() for n, t in trained.items()}
        rest, inputs, batch = alone(frozen), alone(x), alone(y)
        if not balance.separate:
            total, losses = objective(one, rest, inputs, batch, weights[0])
            of = torch.autograd.grad(total, list(one.values()), allow_unused=True)
            return Gradients(_stacked(one, of), losses[None], None)
        losses, _ = losses_of(one, rest, inputs, batch)
        found = by_task(losses, one)
        combined, norms = _combined(balance, found, losses.detach(), weights[0])
        return Gradients(
            {n: g[None] for n, g in combined.items()}, losses.detach()[None], norms[None]
        )

    return one_client


def _differentiated(
    objective: Callable[..., tuple[Tensor, Tensor]], *, batched: bool
) -> Callable[..., Any]:
    """Return (trained, ...) -> gradients of what ``objective`` minimises, and its losses.

    Clients have nothing in common, so the gradient of their sum is each one's own. PyTorch
    differentiates what ``vmap`` has made of the model: ``torch.func.grad`` inside it would batch
    the gradients of operations, of which it has to take some apart; and it imports the compiler.

    Args:
        objective: (trained, ...) of one client -> what is minimised, and losses.
        batched: of all clients at once.
    """
    inside = _inside(objective, batched=batched)
    if batched:
        objective = vmap(objective, randomness="different")

    def gradients(trained: Tensors, *rest: Any) -> tuple[Tensors, Tensor]:
        with torch.enable_grad():
            own = {n: t.detach().requires_grad_() for n, t in trained.items()}
            totals, losses = objective(own, *rest)
            of = torch.autograd.grad(totals.sum(), list(own.values()), materialize_grads=True)
        return dict(zip(own, of, strict=True)), losses

    return functional(gradients, inside)


def _inside(
    objective: Callable[..., tuple[Tensor, Tensor]], *, batched: bool
) -> Callable[..., Any]:
    """As :func:`_differentiated`, without autograd, at which the compiler stops."""
    gradients = grad(objective, has_aux=True)
    return vmap(gradients, randomness="different") if batched else gradients


def _separately(losses_of: Callable[..., Any], balance: Balance) -> Callable[..., Any]:
    """As :func:`_differentiated`, of every task's losses on their own, which ``balance`` combines.

    Args:
        losses_of: of all clients.
        balance: the rule.
    """
    losses_of, combined = functional(losses_of), vmap(partial(_combined, balance))

    def gradients(
        trained: Tensors, frozen: Tensors, x: Input, y: Tensors, weights: Tensor
    ) -> tuple[Tensors, Tensor, Tensor]:
        with torch.enable_grad():
            own = {n: t.detach().requires_grad_() for n, t in trained.items()}
            losses, _ = losses_of(own, frozen, x, y)
            of = by_task(losses.sum(0), own, dim=1)
        return *combined(of, losses.detach(), weights), losses.detach()

    return gradients


def by_task(losses: Tensor, trained: Tensors, dim: int = 0) -> Tensors:
    """Return the gradients of each of the ``[tasks]`` losses, by name, stacked along ``dim``.

    They are zero where a loss does not depend on a parameter.
    """
    places = list(trained.values())
    rows = [
        torch.autograd.grad(loss, places, retain_graph=True, materialize_grads=True)
        for loss in losses
    ]
    of = zip(trained, zip(*rows, strict=True), strict=True)
    return {name: torch.stack(gradients, dim) for name, gradients in of}


def _combined(
    balance: Balance, gradients: Tensors, losses: Tensor, weights: Tensor
) -> tuple[Tensors, Tensor]:
    """Combine one client's gradients of every task into one; return it, and their lengths.

    Args:
        balance: the rule.
        gradients: parameter name -> ``[tasks, ...]``.
        losses: ``[tasks]``.
        weights: ``[tasks]``.
    """
    backbone = [g.flatten(1) for n, g in gradients.items() if n[:9] == "backbone."]
    square = sum((g.square().sum(1) for g in backbone), torch.zeros_like(losses))
    together = weights
    if balance.resolves and backbone:
        gram = torch.stack([g @ g.mT for g in backbone]).sum(0) * weights * weights[:, None]
        together = weights * balance.resolve(gram)
    of = {
        n: torch.tensordot(together if n[:9] == "backbone." else weights, g, 1)
        for n, g in gradients.items()
    }
    return of, square.sqrt()


def _stacked(like: Tensors, gradients: object) -> Tensors:
    return {
        name: (torch.zeros_like(t) if g is None else g)[None]
        for (name, t), g in zip(like.items(), gradients, strict=True)  # type: ignore[call-overload]
    }
