"""Notes of the tensor operations that a program runs, without those that compute nothing.

``make_fx`` takes the same notes, but imitates every tensor by a fake one: it takes several times as
long. Random operations draw every client's own numbers (see :mod:`fedjoint.training.draws`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fedjoint.training.draws import as_clients_draw, is_random

_ops = torch.ops.aten

#: These return their first argument, where it already is as asked for.
_RESHAPES = (
    _ops.detach.default,
    _ops.expand.default,
    _ops.view.default,
    _ops._unsafe_view.default,
)


def trace(program: Callable[..., list[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """Run ``program`` once, and return what runs its operations again, on other numbers.

    Args:
        program: takes and returns tensors; its course depends on their shapes alone.
        tensors: what it takes.

    Returns:
        Its graph, whose nodes know the ``shape``, ``dtype`` and ``memory`` of their values; nodes
        of the same memory are views of one another.

    Raises:
        NotImplementedError: its course depends on numbers.
    """
    recorder = _Recorder(tensors)
    with recorder:
        results = functionalize(program)(*tensors)
    recorder.graph.output([recorder.node(tensor) for tensor in results])
    _simplify(recorder.graph)
    return fx.GraphModule(recorder.constants, recorder.graph)


class _Recorder(TorchDispatchMode):
    """Writes down every operation that is run inside."""

    def __init__(self, tensors: Sequence[Tensor]):
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        # By identity, which holds for as long as the tensors are kept.
        self._known: dict[int, tuple[Tensor, fx.Node]] = {}
        for place, tensor in enumerate(tensors):
            self._name(tensor, self.graph.placeholder(f"input_{place}"))

    def node(self, tensor: Tensor) -> fx.Node:
        """Return the node whose value is ``tensor``: a constant where no operation returned it."""
        if id(tensor) not in self._known:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor
            self._name(tensor, self.graph.get_attr(name))
        return self._known[id(tensor)][1]

    def _name(self, tensor: Tensor, node: fx.Node) -> None:
        self._known[id(tensor)] = tensor, node
        memory = tensor.untyped_storage()._cdata
        node.meta |= {"shape": tensor.shape, "dtype": tensor.dtype, "memory": memory}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            raise NotImplementedError(f"{func} changes a tensor in place")
        result = func(*args, **kwargs)
        node = self.graph.call_function(func, *tree_map_only(Tensor, self.node, (args, kwargs)))
        if isinstance(result, Tensor):
            self._name(result, node)
        elif isinstance(result, (tuple, list)):
            for place, part in enumerate(result):
                if isinstance(part, Tensor):
                    taken = self.graph.call_function(operator.getitem, (node, place))
                    self._name(part, taken)
        else:
            raise NotImplementedError(f"{func} reads numbers")
        return result


def _simplify(graph: fx.Graph) -> None:
    """Leave out what computes nothing, and have clients draw random numbers of their own."""
    for node in graph.nodes:
        if node.op == "call_function" and (same := _repeated(node)) is not None:
            node.replace_all_uses_with(same)
        elif node.op == "call_function" and is_random(node.target):
            node.target = as_clients_draw(node.target)
    graph.eliminate_dead_code()


def _repeated(node: fx.Node) -> fx.Node | None:
    """Return the node whose value ``node`` has again, if there is one."""
    first, *rest = node.args
    if not isinstance(first, fx.Node):
        return None
    if node.target in _RESHAPES:
        return first if node.meta["shape"] == first.meta["shape"] else None
    if node.target == _ops.mul.Scalar:
        return first if rest == [1] and node.meta["dtype"] == first.meta["dtype"] else None
    twice = node.target == first.target == _ops.transpose.int
    return first.args[0] if twice and list(first.args[1:]) == rest else None  # type: ignore[return-value]
