"""One trace for any number of clients.

A trace has the number of clients in it, wherever a shape is written out. Two traces, of two and of
three clients, tell which numbers those are: they grow as the clients do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fedjoint.training.notes import Graphed, Note, Notes
from fedjoint.training.trace import trace

_FEW, _MORE = 2, 3


def trace_for_any(program: Callable[..., list[Tensor]], tensors: Sequence[Tensor]) -> Graphed:
    """Return what runs the operations of ``program`` on any number of clients.

    Args:
        program: takes and returns tensors stacked over clients; its course depends on their shapes
            alone.
        tensors: what it takes, one or more clients.

    Raises:
        NotImplementedError: its course depends on numbers, or on how many clients there are.
    """
    two, three = (trace(program, [few(t, count) for t in tensors]) for count in (_FEW, _MORE))
    return _Merged(two, three).notes.graph()


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
    """The notes of two programs that differ by the number of clients alone."""

    def __init__(self, few: Notes, more: Notes) -> None:
        self._few, self._more = few.constants, more.constants
        self._steps: list[Note] = []
        self._of: dict[Note, Note] = {}
        self._twins: dict[Note, Note] = {}
        self._multiples: dict[int, Note] = {}
        if len(few.steps) != len(more.steps):
            raise _depends()
        for note, other in zip(few.steps, more.steps, strict=True):
            self._add(note, other)
        self.notes = Notes(self._steps, self._both(few.results, more.results), few.constants)

    def _add(self, note: Note, other: Note) -> None:
        if note.op != "placeholder" and not self._multiples:
            self._count()
        if note.op != other.op or note.target != other.target:
            raise _depends()
        if note.op == "get_attr" and not torch.equal(
            self._few[note.target], self._more[other.target]
        ):
            raise _depends()
        self._twins[other] = note
        args, kwargs = self._both((note.args, note.kwargs), (other.args, other.kwargs))
        self._of[note] = Note(note.op, note.target, args, kwargs, note.meta)
        self._steps.append(self._of[note])

    def _count(self) -> None:
        self._multiples[1] = Note("call_method", "size", (self._steps[0], 0))
        self._steps.append(self._multiples[1])

    def _both(self, value: Any, other: Any) -> Any:
        """Return what stands for ``value`` among two clients and ``other`` among three."""
        if isinstance(value, Note):
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

    def _multiple(self, value: Any, other: Any) -> Note:
        if type(value) is not int or value * _MORE != other * _FEW or value % _FEW:
            raise _depends()
        times = value // _FEW
        if times not in self._multiples:
            self._multiples[times] = Note(
                "call_function", operator.mul, (self._multiples[1], times)
            )
            self._steps.append(self._multiples[times])
        return self._multiples[times]


def _depends() -> NotImplementedError:
    return NotImplementedError("its course depends on how many clients there are")
