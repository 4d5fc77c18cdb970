"""Notes of the operations that a program runs, and the graph that runs them again.

Two programs are noted and compared before a graph is written, as writing one takes longer than
running a small model's operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, fx

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Note:
    """One operation, or one thing that a program takes.

    Attributes:
        op: as that of :class:`torch.fx.Node`.
        target: the operation; of anything else its name.
        args, kwargs: of the operation, with notes in place of tensors.
        meta: the ``shape``, ``dtype`` and ``memory`` of its value, where that is a tensor; notes of
            the same memory are views of one another.
    """

    op: str
    target: Any
    args: Any = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


class Graphed(NamedTuple):
    """A graph that takes tensors, and the constants that it names."""

    graph: fx.Graph
    constants: dict[str, Tensor]

    def compiled(self) -> fx.GraphModule:
        """Return what runs it."""
        return fx.GraphModule(dict(self.constants), self.graph)


class Notes(NamedTuple):
    """What a program does.

    Attributes:
        steps: in their order; what it takes comes first.
        results: of them, what the program returns.
        constants: name -> what it reads and does not take.
    """

    steps: list[Note]
    results: list[Note]
    constants: dict[str, Tensor]

    def needed(self) -> Notes:
        """Leave out what has no part in the results."""
        needed, waiting = set[Note](), list(self.results)
        while waiting:
            note = waiting.pop()
            if note not in needed:
                needed.add(note)
                replaced((note.args, note.kwargs), Note, waiting.append)
        steps = [note for note in self.steps if note.op == "placeholder" or note in needed]
        return self._replace(steps=steps)

    def graph(self) -> Graphed:
        """Write the graph."""
        graph, nodes = fx.Graph(), dict[Note, fx.Node]()
        for note in self.steps:
            args, kwargs = replaced((note.args, note.kwargs), Note, nodes.__getitem__)
            nodes[note] = graph.create_node(note.op, note.target, args, kwargs)
            nodes[note].meta.update(note.meta)
        graph.output([nodes[note] for note in self.results])
        return Graphed(graph, self.constants)


def replaced(value: Any, kind: type[T], by: Callable[[T], Any]) -> Any:
    """Return the arguments of an operation with ``by(part)`` in place of parts of a ``kind``."""
    if isinstance(value, kind):
        return by(value)
    if not isinstance(value, (list, tuple, dict)):
        return value
    if isinstance(value, list):
        return [replaced(each, kind, by) for each in value]
    if isinstance(value, tuple):
        return tuple([replaced(each, kind, by) for each in value])
    return {name: replaced(each, kind, by) for name, each in value.items()}
