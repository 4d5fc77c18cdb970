"""A traced step of SGD in which the products that make gradients change the weights themselves.

A gradient that is written down and read again by the optimiser goes through memory twice. A linear
layer's is a product, and one more product adds it, scaled, to the weight (or to the momentum).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fedjoint.training.notes import Graphed

_ops = torch.ops.aten

#: Operations that may overwrite what they read, where nobody else reads it.
_IN_PLACE = {
    _ops.relu.default: torch.relu_,
    _ops.tanh.default: torch.tanh_,
    _ops.sigmoid.default: torch.sigmoid_,
}

#: What adds a product to something.
_SUMS = {_ops.bmm.default: torch.baddbmm, _ops.mm.default: torch.addmm}


def descending(traced: Graphed, parameters: int, momentum: float, decay: float) -> Graphed:
    """Return ``traced``, which makes gradients, as a step by the rule of ``torch.optim.SGD``.

    It takes what ``traced`` takes, then the learning rate, and with momentum a buffer for each
    parameter, zero before the first step. It changes parameters and buffers in place, and returns
    what ``traced`` returns beside gradients.

    Args:
        traced: see :func:`fedjoint.training.trace.trace`. It takes the parameters, of one client or
            stacked over clients, before anything else, and returns their gradients before anything
            else. Its graph is changed.
        parameters: how many there are.
        momentum: of SGD.
        decay: the factor of the weights in their gradients.

    Raises:
        NotImplementedError: a result or a gradient is a view of a parameter.
    """
    graph = traced.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    (output,) = (node for node in graph.nodes if node.op == "output")
    results = [_untransposed(graph, result) for result in output.args[0][:parameters]]
    results += output.args[0][parameters:]
    _add_in_products(graph)
    _overwrite(graph)
    output.args = (results[parameters:],)
    steps = _Steps(graph, inputs, parameters, momentum, decay)
    for parameter, gradient in zip(inputs[:parameters], results[:parameters], strict=True):
        steps.add(parameter, gradient)
    needed = {*steps.nodes, *inputs, output}
    graph.eliminate_dead_code(lambda node: node in needed or node.op == "placeholder")
    return traced


def _untransposed(graph: fx.Graph, gradient: Any) -> Any:
    """Return a transposed product, ``(A B)^T``, as the product that it is: ``B^T A^T``."""
    product = _turned(gradient)
    if product is None or not _is_product(product) or len(product.users) > 1:
        return gradient
    with graph.inserting_before(gradient):
        factors = [_turned(factor) or _turn(graph, factor) for factor in product.args]
        turned = graph.call_function(product.target, tuple(reversed(factors)))
    turned.meta = {**product.meta, "shape": gradient.meta["shape"]}
    return turned


def _turned(node: Any) -> Any:
    """Return the matrices of which ``node`` is the transpose; None: it is none."""
    if not isinstance(node, fx.Node) or node.target not in (_ops.transpose.int, _ops.t.default):
        return None
    matrix: Any = node.args[0]
    swapped: Any = node.args[1:]
    rank = len(node.meta["shape"])
    return matrix if {each % rank for each in swapped} in (set(), {rank - 2, rank - 1}) else None


def _turn(graph: fx.Graph, node: fx.Node) -> fx.Node:
    found = graph.call_function(_ops.transpose.int, (node, -2, -1))
    *lead, rows, columns = node.meta["shape"]
    found.meta = {**node.meta, "shape": torch.Size((*lead, columns, rows))}
    return found


def _add_in_products(graph: fx.Graph) -> None:
    """Let products that are added to something be added as they are made."""
    for node in list(graph.nodes):
        if node.target != _ops.add.Tensor or len(node.args) != 2 or node.kwargs:
            continue
        start, product = node.args
        if (
            _is_product(product)
            and len(product.users) == 1
            and product.meta["shape"] == node.meta["shape"]
            and isinstance(start, fx.Node)
            and start.meta["dtype"] == torch.float32
        ):
            node.target = _SUMS[product.target]
            node.args = (start, *product.args)
            graph.erase_node(product)


def _overwrite(graph: fx.Graph) -> None:
    memories = [node.meta.get("memory") for node in graph.nodes]
    for node in graph.nodes:
        if node.target not in _IN_PLACE:
            continue
        (read,) = node.args
        fresh = read.op == "call_function" and memories.count(read.meta["memory"]) == 1
        if fresh and len(read.users) == 1:
            node.target = _IN_PLACE[node.target]


def _is_product(value: Any) -> bool:
    return (
        isinstance(value, fx.Node)
        and value.target in _SUMS
        and value.meta["dtype"] == torch.float32
    )


class _Steps:
    """Writes the steps of parameters into a graph.

    Args:
        graph: computes gradients.
        inputs: of it, the parameters first.
        parameters: how many they are.
        momentum, decay: of SGD.
    """

    def __init__(
        self,
        graph: fx.Graph,
        inputs: Sequence[fx.Node],
        parameters: int,
        momentum: float,
        decay: float,
    ) -> None:
        self._graph, self._momentum, self._decay = graph, momentum, decay
        self._changing = {node.meta["memory"] for node in inputs[:parameters]}
        with graph.inserting_after(inputs[-1]):
            self._rate = self._last = graph.placeholder("rate")
        self.nodes: list[fx.Node] = []

    def add(self, parameter: fx.Node, gradient: fx.Node) -> None:
        """Step ``parameter`` along ``gradient`` as soon as nobody reads its old value any more."""
        factors = self._factors(gradient)
        constants: tuple[Any, ...] = (self._rate, self._decay)
        rule: Any = _by_product if len(factors) == 2 else _by_gradient
        if self._momentum:
            constants = (self._buffer(), *constants, self._momentum)
            rule = _buffer_by_product if len(factors) == 2 else _buffer_by_gradient
        with self._graph.inserting_after(self._last_use(parameter, factors)):
            self.nodes.append(self._graph.call_function(rule, (parameter, *factors, *constants)))

    def _factors(self, gradient: fx.Node) -> tuple[fx.Node, ...]:
        """Return what the step reads: nothing that another parameter's step changes."""
        changing = self._changing
        if _is_product(gradient) and not gradient.users:
            factors: tuple[Any, ...] = gradient.args
            if not any(factor.meta["memory"] in changing for factor in factors):
                return factors
        if gradient.meta["memory"] in changing:
            raise NotImplementedError("a gradient is a view of a parameter")
        return (gradient,)

    def _buffer(self) -> fx.Node:
        with self._graph.inserting_after(self._last):
            self._last = self._graph.placeholder(f"buffer_{len(self.nodes)}")
        return self._last

    def _last_use(self, parameter: fx.Node, factors: tuple[fx.Node, ...]) -> fx.Node:
        place = {node: at for at, node in enumerate(self._graph.nodes)}
        memory = parameter.meta["memory"]
        views = [node for node in place if node.meta.get("memory") == memory]
        uses = [user for view in views for user in view.users]
        last = max([self._last, *views, *uses, *factors], key=place.__getitem__)
        if last.op == "output":
            raise NotImplementedError("a result is a view of a parameter")
        return last


def _by_product(p: Tensor, a: Tensor, b: Tensor, rate: float, decay: float) -> None:
    _add_product(p, a, b, 1 - rate * decay, -rate)


def _add_product(to: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> None:
    add = to.baddbmm_ if a.ndim == 3 else to.addmm_
    add(a, b, beta=beta, alpha=alpha)


def _by_gradient(p: Tensor, g: Tensor, rate: float, decay: float) -> None:
    if decay:
        p.mul_(1 - rate * decay)
    p.sub_(g, alpha=rate)


def _buffer_by_product(
    p: Tensor, a: Tensor, b: Tensor, buffer: Tensor, rate: float, decay: float, momentum: float
) -> None:
    _add_product(buffer, a, b, momentum, 1.0)
    _by_buffer(p, buffer, rate, decay)


def _buffer_by_gradient(
    p: Tensor, g: Tensor, buffer: Tensor, rate: float, decay: float, momentum: float
) -> None:
    buffer.mul_(momentum).add_(g)
    _by_buffer(p, buffer, rate, decay)


def _by_buffer(p: Tensor, buffer: Tensor, rate: float, decay: float) -> None:
    if decay:
        buffer.add_(p, alpha=decay)
    p.sub_(buffer, alpha=rate)
