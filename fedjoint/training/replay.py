"""A batched program, traced once and then replayed as bare tensor operations.

``vmap`` and ``grad`` decide anew at every call which operations to run, which takes longer than
running them where models are small. What they decide depends on the shapes alone, so it is
written down at the first call (see :mod:`fedjoint.training.generic`) and run from the notes: the
same operations on the same operands, so the results are the same, bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from fedjoint.training.draws import set_aside
from fedjoint.training.generic import few, trace_for_any
from fedjoint.training.notes import Graphed
from fedjoint.training.quick import quicken
from fedjoint.training.trace import trace

log = logging.getLogger("fedjoint.training")

#: Shapes of which traces are kept, and numbers of calls.
_MOST = 256

Tensors = dict[str, Tensor]
Values = tuple[Tensor | Tensors, ...]
Form = tuple[tuple[str, ...] | None, ...]
Program = Callable[..., Any]


def replayed(program: Program, after: int = 0) -> Program:
    """Return ``program``, replayed from a trace.

    Args:
        program: takes tensors and dicts of tensors, stacked over clients, and returns a tuple of
            such. Its course depends on their shapes alone; random numbers are drawn anew at every
            call. Where it cannot be traced, it runs as it is.
        after: how often it runs as it is before it is traced, for each shape of what it takes: a
            trace costs as much as some runs.
    """
    traced: dict[Hashable, tuple[Program, Form] | None] = {}
    seen: dict[Hashable, int] = {}

    def run(*arguments: Tensor | Tensors) -> Values:
        tensors = flat(arguments)
        key = shapes(arguments, tensors)
        if key not in traced:
            calls = seen.pop(key, 0) + 1
            _make_room(seen)
            seen[key] = calls
            if calls <= after:
                return program(*arguments)
            _make_room(traced)
            traced[key] = _trace(program, arguments, tensors)
        if (found := traced[key]) is None:
            return program(*arguments)
        graph, form = found
        # Random operations find the clients' numbers themselves; the others need no mode.
        with _disable_current_modes():
            return _formed(graph(*tensors), form)

    return run


def _make_room(found: dict[Hashable, Any]) -> None:
    """Forget the oldest where there is no room for one more."""
    while len(found) >= _MOST:
        del found[next(iter(found))]


def shapes(arguments: Values, tensors: Sequence[Tensor]) -> Hashable:
    """Return what a trace of ``arguments`` depends on; ``tensors`` are theirs."""
    return _form(arguments), *((t.shape[1:], t.stride(), t.dtype, t.device) for t in tensors)


def flat(values: Values) -> list[Tensor]:
    """Return the tensors, those of a dict in its order."""
    found: list[Tensor] = []
    for value in values:
        found += value.values() if isinstance(value, dict) else [value]
    return found


def _form(values: Values) -> Form:
    """Return the names in every dict, None for a tensor."""
    return tuple(tuple(value) if isinstance(value, dict) else None for value in values)


def _formed(tensors: Iterable[Tensor], form: Form) -> Values:
    """Undo :func:`flat`."""
    left = iter(tensors)
    return tuple(
        next(left) if names is None else dict(zip(names, left, strict=False)) for names in form
    )


def _trace(
    program: Program, arguments: Values, tensors: Sequence[Tensor]
) -> tuple[Program, Form] | None:
    try:
        graph, form = notes(program, arguments, tensors)
        with _nothing_drawn(tensors), _disable_current_modes():
            # Not the module itself: it writes a traceback of its own where memory runs out.
            return quicken(graph, [few(tensor) for tensor in tensors]).forward, form
    except Exception as error:  # whatever a model may do that cannot be written down
        log.info("a batched program is not traced: %s", error)
        return None


def notes(program: Program, arguments: Values, tensors: Sequence[Tensor]) -> tuple[Graphed, Form]:
    """Trace ``program`` for any number of clients; random numbers are not used up.

    Returns:
        What takes ``tensors`` and returns the results flat, and their form.
    """
    return _noted(program, arguments, tensors, trace_for_any)


def notes_of_one(
    program: Program, arguments: Values, tensors: Sequence[Tensor], *, apart: bool
) -> Graphed:
    """Trace a ``program`` of one client; random numbers are not used up.

    Args:
        program: the program.
        arguments: what it takes.
        tensors: all tensors in that.
        apart: whether a program that changes tensors in place is taken apart.

    Returns:
        What takes ``tensors`` and returns the results flat.

    Raises:
        NotImplementedError: it cannot be traced.
    """

    def write(flatly: Callable[..., list[Tensor]], values: Sequence[Tensor]) -> Graphed:
        return trace(flatly, values, apart=apart).graph()

    graph, _ = _noted(program, arguments, tensors, write)
    return graph


def _noted(
    program: Program,
    arguments: Values,
    tensors: Sequence[Tensor],
    write: Callable[[Callable[..., list[Tensor]], Sequence[Tensor]], Graphed],
) -> tuple[Graphed, Form]:
    forms: list[Form] = []

    def flatly(*values: Tensor) -> list[Tensor]:
        results = program(*_formed(values, _form(arguments)))
        forms.append(_form(results))
        return flat(results)

    with _nothing_drawn(tensors), _disable_current_modes():
        return write(flatly, tensors), forms[-1]


@contextmanager
def _nothing_drawn(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Use up random numbers neither of PyTorch's generators nor of the clients."""
    devices = [tensor.device for tensor in tensors if tensor.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices), set_aside():
        yield
