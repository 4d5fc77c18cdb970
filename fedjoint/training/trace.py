"""Notes of the tensor operations that a program runs, without those that compute nothing.

``make_fx`` takes the same notes, but imitates every tensor by a fake one: it takes several times as
long. Random operations draw every client's own numbers (see :mod:`fedjoint.training.draws`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.func import functionalize

from fedjoint.model.dispatch import Mode
from fedjoint.training.draws import as_clients_draw, is_random
from fedjoint.training.notes import Note, Notes, replaced

P = ParamSpec("P")
T = TypeVar("T")

_ops = torch.ops.aten

#: These return their first argument, where it already is as asked for.
_RESHAPES = (
    _ops.detach.default,
    _ops.expand.default,
    _ops.view.default,
    _ops._unsafe_view.default,
)

#: These undo themselves.
_SWAPS = (_ops.transpose.int, _ops.t.default)


def trace(
    program: Callable[..., list[Tensor]], tensors: Sequence[Tensor], *, apart: bool = True
) -> Notes:
    """Run ``program`` once, and return notes of its operations, which run on other numbers, too.

    Args:
        program: takes and returns tensors; its course depends on their shapes alone. Parts of it
            that may change tensors in place are :func:`functional`.
        tensors: what it takes.
        apart: whether those parts are made functional, where they are not.

    Raises:
        NotImplementedError: its course depends on numbers, or it changes tensors in place.
    """
    try:
        return _recorded(program, tensors)
    except _InPlaceError:
        if not apart:
            raise
        with _asked():
            return _recorded(program, tensors)


def functional(program: Callable[P, T], instead: Callable[P, T] | None = None) -> Callable[P, T]:
    """Return ``program``, which changes nothing in place where a trace needs it so.

    Most need no such thing, and ``functionalize`` imports PyTorch's compiler, which takes as long
    as PyTorch itself. It takes programs alone that do not use autograd.

    Args:
        program: the program, or a part of it.
        instead: computes the same without autograd; None: ``program`` does so.
    """

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return (functionalize(instead or program) if _needed else program)(*args, **kwargs)

    return run


#: Whether parts of programs are to be functional.
_needed: list[bool] = []


@contextmanager
def _asked() -> Iterator[None]:
    _needed.append(True)
    try:
        yield
    finally:
        _needed.pop()


def _recorded(program: Callable[..., list[Tensor]], tensors: Sequence[Tensor]) -> Notes:
    recorder = _Recorder(tensors)
    with recorder:
        results = program(*tensors)
    return Notes(
        recorder.steps, [recorder.note(tensor) for tensor in results], recorder.constants
    ).needed()


class _InPlaceError(NotImplementedError):
    pass


class _Recorder(Mode):
    """Writes down every operation that is run inside."""

    def __init__(self, tensors: Sequence[Tensor]):
        super().__init__()
        self.steps: list[Note] = []
        self.constants: dict[str, Tensor] = {}
        # By identity, which holds for as long as the tensors are kept.
        self._known: dict[int, tuple[Tensor, Note]] = {}
        for place, tensor in enumerate(tensors):
            self._name(tensor, self._add(Note("placeholder", f"input_{place}")))

    def note(self, tensor: Tensor) -> Note:
        """Return the note whose value is ``tensor``: a constant where no operation returned it."""
        if id(tensor) not in self._known:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor
            self._name(tensor, self._add(Note("get_attr", name)))
        return self._known[id(tensor)][1]

    def _add(self, note: Note) -> Note:
        self.steps.append(note)
        return note

    def _name(self, tensor: Tensor, note: Note) -> None:
        memory = tensor.untyped_storage()._cdata
        note.meta = {"shape": tensor.shape, "dtype": tensor.dtype, "memory": memory}
        self._known[id(tensor)] = tensor, note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            raise _InPlaceError(f"{func} changes a tensor in place")
        result = func(*args, **kwargs)
        target = as_clients_draw(func) if is_random(func) else func
        noted, named = replaced(args, Tensor, self.note), replaced(kwargs, Tensor, self.note)
        if isinstance(result, Tensor):
            if (same := _repeated(func, noted, result)) is not None:
                self._known[id(result)] = result, same
            else:
                self._name(result, self._add(Note("call_function", target, noted, named)))
        elif isinstance(result, (tuple, list)):
            whole = self._add(Note("call_function", target, noted, named))
            for place, part in enumerate(result):
                if isinstance(part, Tensor):
                    taken = Note("call_function", operator.getitem, (whole, place))
                    self._name(part, self._add(taken))
        else:
            raise NotImplementedError(f"{func} reads numbers")
        return result


def _repeated(operation: Any, args: tuple[Any, ...], result: Tensor) -> Note | None:
    """Return the note whose value an operation has returned again, if there is one."""
    first, *rest = args or (None,)
    if not isinstance(first, Note):
        return None
    if operation in _RESHAPES:
        return first if result.shape == first.meta["shape"] else None
    if operation == _ops.mul.Scalar:
        return first if rest == [1] and result.dtype == first.meta["dtype"] else None
    if operation == _ops.permute.default:
        return first if rest[0] == list(range(len(rest[0]))) else None
    twice = operation == first.target and operation in _SWAPS
    return first.args[0] if twice and list(first.args[1:]) == rest else None
