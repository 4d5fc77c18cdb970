"""One trace for any number of clients.

A trace has the number of clients in it, wherever a shape is written out. Two traces, of two and of
three clients, tell which numbers those are: they grow as the clients do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fedjoint.training.trace import trace

_FEW, _MORE = 2, 3


def trace_for_any(
    program: Callable[..., list[Tensor]], tensors: Sequence[Tensor]
) -> fx.GraphModule:
    """Return what runs the operations of ``program`` on any number of clients.

    Args:
        program: takes and returns tensors stacked over clients; its course depends on their shapes
            alone.
        tensors: what it takes, one or more clients.

    Raises:
        NotImplementedError: its course depends on numbers, or on how many clients there are.
    """
    two, three = (trace(program, [few(t, count) for t in tensors]) for count in (_FEW, _MORE))
    return fx.GraphModule(two, _Merged(two, three).graph)


def few(tensor: Tensor, clients: int = _FEW) -> Tensor:
    """Return the first client's part for each of ``clients``, laid out as ``tensor`` is.

    Raises:
        NotImplementedError: its clients do not lie one after the other.
    """
    first, stride = tensor[:1], tensor.stride(0)
    shape = (clients, *tensor.shape[1:])
    if not stride or not tensor.numel():
        return first.expand(shape)
    one = 1 + sum(
        (size - 1) * step for size, step in zip(shape[1:], tensor.stride()[1:], strict=True)
    )
    if stride < one and len(tensor) > 1:
        raise NotImplementedError("its clients do not lie one after the other")
    room = tensor.new_empty((clients - 1) * max(stride, one) + one)
    return room.as_strided(shape, (max(stride, one), *tensor.stride()[1:])).copy_(
        first.expand(shape)
    )


class _Merged:
    """The graph of two traces that differ by the number of clients alone."""

    def __init__(self, few: fx.GraphModule, more: fx.GraphModule) -> None:
        self._few, self._more = few, more
        self.graph = fx.Graph()
        self._of: dict[fx.Node, fx.Node] = {}
        self._twins: dict[fx.Node, fx.Node] = {}
        self._multiples: dict[int, fx.Node] = {}
        nodes, others = list(few.graph.nodes), list(more.graph.nodes)
        if len(nodes) != len(others):
            raise _depends()
        for node, other in zip(nodes, others, strict=True):
            self._add(node, other)

    def _add(self, node: fx.Node, other: fx.Node) -> None:
        if node.op != "placeholder" and not self._multiples:
            self._count()
        if node.op != other.op or node.target != other.target:
            raise _depends()
        if node.op == "get_attr" and not torch.equal(
            getattr(self._few, str(node.target)), getattr(self._more, str(other.target))
        ):
            raise _depends()
        self._twins[other] = node
        args, kwargs = self._both((node.args, dict(node.kwargs)), (other.args, dict(other.kwargs)))
        self._of[node] = self.graph.create_node(node.op, node.target, args, kwargs)
        self._of[node].meta = dict(node.meta)

    def _count(self) -> None:
        first = next(iter(self._of.values()))
        self._multiples[1] = self.graph.call_method("size", (first, 0))

    def _both(self, value: Any, other: Any) -> Any:
        """Return what stands for ``value`` among two clients and ``other`` among three."""
        if isinstance(value, fx.Node):
            if self._twins.get(other) is not value:
                raise _depends()
            return self._of[value]
        if type(value) is not type(other):
            raise _depends()
        if isinstance(value, (tuple, list)):
            if len(value) != len(other):
                raise _depends()
            both = [self._both(a, b) for a, b in zip(value, other, strict=True)]
            return both if isinstance(value, list) else tuple(both)
        if isinstance(value, dict):
            return {name: self._both(a, other.get(name)) for name, a in value.items()}
        if value == other:
            return value
        return self._multiple(value, other)

    def _multiple(self, value: Any, other: Any) -> fx.Node:
        if type(value) is not int or value * _MORE != other * _FEW or value % _FEW:
            raise _depends()
        times = value // _FEW
        if times not in self._multiples:
            self._multiples[times] = self.graph.call_function(
                operator.mul, (self._multiples[1], times)
            )
        return self._multiples[times]


def _depends() -> NotImplementedError:
    return NotImplementedError("its course depends on how many clients there are")
