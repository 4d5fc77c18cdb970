"""The outputs of many clients' models at once, for evaluation: one ``vmap``, or a loop's turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.func import functional_call, vmap

from fedjoint.model.joint import JointModel
from fedjoint.model.tree import Input, each, first
from fedjoint.training.alone import laid_out
from fedjoint.training.attention import batchable
from fedjoint.training.replay import replayed
from fedjoint.training.trace import functional

Tensors = dict[str, Tensor]

#: (weights, x), each stacked over clients -> task -> ``[clients, rows, ...]`` outputs; of one
#: client that is not batched, weights are as its model has them
Outputs = Callable[[Tensors, Input], Tensors]

#: Passes over as many rows before they are traced. Where other clients take part in every round,
#: hardly any last pass has as many rows as another.
_SEEN = 4


def make_outputs(
    model: JointModel, tasks: Sequence[str], *, batched: bool, channels_last: bool
) -> Outputs:
    """Return what computes the clients' outputs; the caller sets evaluation mode.

    Args:
        model: its modules say what is computed; its own weights are never used.
        tasks: names of the clients' tasks.
        batched: all clients in one batched program. If not, the function takes one client.
        channels_last: how the one client's weights and images lie in memory.
    """

    def forward(weights: Tensors, x: Input) -> Tensors:
        outputs: Tensors = functional_call(model, weights, (x, tasks))
        return outputs

    def of_one(weights: Tensors, x: Input) -> Tensors:
        own = each(lambda tensor: laid_out(tensor[0], channels_last), x)
        return {name: output[None] for name, output in forward(weights, own).items()}

    many = functional(vmap(forward, randomness="different"))

    def of_all(weights: Tensors, x: Input) -> tuple[Tensors]:
        with batchable(first(x).device):
            return (many(weights, x),)

    if not batched:
        return of_one
    program = replayed(of_all, after=_SEEN)
    return lambda weights, x: program(weights, each(_packed, x))[0]


def _packed(x: Tensor) -> Tensor:
    """Return rows of clients one client's after the other's: a trace goes by how they lie.

    Rows that all clients share stay so.
    """
    return x.contiguous() if x.stride(0) else x
