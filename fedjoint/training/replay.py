"""A batched program, traced once and then replayed as bare tensor operations.

``vmap`` and ``grad`` decide anew at every call which operations to run, which takes longer than
running them where models are small. What they decide depends on the shapes alone, so it is
written down once per shape (see :mod:`fedjoint.training.trace`) and run from the notes: the same
operations on the same operands, so the results are the same, bit for bit.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from fedjoint.training.trace import trace

log = logging.getLogger("fedjoint.training")

Tensors = dict[str, Tensor]
Values = tuple[Tensor | Tensors, ...]
Form = tuple[tuple[str, ...] | None, ...]
Program = Callable[..., Any]

#: Calls with the same shapes before the program is traced, which takes as long as some 10 calls.
CALLS = 8


def replayed(program: Program) -> Program:
    """Return ``program``, replayed once it has been called :data:`CALLS` times with some shapes.

    Args:
        program: takes tensors and dicts of tensors, and returns a tuple of such. Its course
            depends on their shapes alone; random numbers are drawn anew at every call. Where it
            cannot be traced, it runs as it is.
    """
    calls: Counter[Hashable] = Counter()
    traced: dict[Hashable, Callable[[list[Tensor]], Values] | None] = {}

    def run(*arguments: Tensor | Tensors) -> Values:
        tensors = _flat(arguments)
        form = _form(arguments)
        key = form, *((t.shape, t.stride(), t.dtype) for t in tensors)
        if key not in traced:
            calls[key] += 1
            if calls[key] <= CALLS:
                return program(*arguments)
            traced[key] = _trace(program, tensors, form)
        replay = traced[key]
        return program(*arguments) if replay is None else replay(tensors)

    return run


def _form(values: Values) -> Form:
    """Return the names in every dict, None for a tensor."""
    return tuple(tuple(value) if isinstance(value, dict) else None for value in values)


def _flat(values: Values) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        found += value.values() if isinstance(value, dict) else [value]
    return found


def _formed(tensors: Iterable[Tensor], form: Form) -> Values:
    """Undo :func:`_flat`."""
    left = iter(tensors)
    return tuple(
        next(left) if names is None else dict(zip(names, left, strict=False)) for names in form
    )


def _trace(
    program: Program, tensors: list[Tensor], form: Form
) -> Callable[[list[Tensor]], Values] | None:
    """Return the trace of ``program``, or None where that fails."""
    forms: list[Form] = []

    def flat(*values: Tensor) -> list[Tensor]:
        results = program(*_formed(values, form))
        forms.append(_form(results))
        return _flat(results)

    devices = [tensor.device for tensor in tensors if tensor.device.type == "cuda"][:1]
    try:
        # Tracing runs the program once, which must not use up random numbers.
        with torch.random.fork_rng(devices), _disable_current_modes():
            graph = trace(flat, tensors)
    except Exception as error:  # whatever a model may do that cannot be written down
        log.info("a batched program is not traced: %s", error)
        return None

    def replay(values: list[Tensor]) -> Values:
        # Random operations find the clients' numbers themselves; the others need no mode.
        with _disable_current_modes():
            return _formed(graph(*values), forms[-1])

    return replay
