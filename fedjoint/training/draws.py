"""What PyTorch draws in a batched program of many clients: each draws its own numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.dispatch import Mode
from fedjoint.randomness import default_generators, seeded, seeded_elsewhere

T = TypeVar("T")


class _Draws:
    """The state of PyTorch's generators for each of some clients."""

    def __init__(self, device: torch.device, seeds: Sequence[int]) -> None:
        self.turn: np.ndarray | None = None  # whose numbers count; the others wait
        self._generators = default_generators(device)
        self._states = [
            [each.manual_seed(seed).get_state() for each in self._generators] for seed in seeds
        ]

    def __call__(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run ``operation`` on every client's part, drawing from the client's own state.

        Raises:
            UserError: nothing in it has a row for each client.
        """
        results = []
        for client, states in enumerate(self._states):
            part = _Part(client, len(self._states))
            mine, named = part.of(args), {name: part.of(value) for name, value in kwargs.items()}
            if not part.divided:
                raise UserError(f"{operation} draws random numbers that are no client's own")
            for generator, state in zip(self._generators, states, strict=True):
                generator.set_state(state)
            results.append(in_order(operation, mine, named))
            if self.turn is None or self.turn[client]:
                self._states[client] = [each.get_state() for each in self._generators]
        if operation._schema.is_mutable:
            return args[0]
        if isinstance(results[0], tuple):
            return tuple(torch.stack(parts) for parts in zip(*results, strict=True))
        return torch.stack(results)


class _Part:
    """Takes one client's rows out of an operation's arguments."""

    def __init__(self, client: int, count: int) -> None:
        self.client, self.count, self.divided = client, count, False

    def of(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == self.count:
            self.divided = True
            return value[self.client]
        if isinstance(value, tuple):
            return tuple(self.of(each) for each in value)
        if isinstance(value, list) and value and value[0] == self.count:  # the size of a result
            self.divided = True
            return value[1:]
        return value


#: The draws in force, for programs that run from a trace.
_current: list[_Draws] = []


def take_turns(who: np.ndarray | None) -> None:
    """Use up random numbers of the clients ``who`` ``[clients]`` alone from now on; None: of all.

    A client that waits for others to end their steps draws in vain: alone, it would not.
    """
    if _current:
        _current[-1].turn = who


class _Mode(Mode):
    def __init__(self, draws: _Draws) -> None:
        super().__init__()
        self._draws = draws

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if is_random(func):
            return self._draws(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def in_order(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run a random operation that draws numbers in the order of its tensors' elements.

    PyTorch draws them in the order of memory, which in a batched program may be another one than
    for one client. What kernels of attention draw does not depend on that.
    """
    if _dropout(operation) is not None or not _scattered(args):
        return operation(*args, **kwargs)
    ordered = [a.contiguous() if isinstance(a, Tensor) else a for a in args]
    result = operation(*ordered, **kwargs)
    return args[0].copy_(result) if operation._schema.is_mutable else result


def _scattered(args: tuple[Any, ...]) -> bool:
    return any(isinstance(a, Tensor) and not a.is_contiguous() for a in args)


class InOrder(Mode):
    """Has a client that trains alone draw as it does beside others, see :func:`in_order`.

    Attributes:
        needed: whether that has made a difference.
    """

    def __init__(self) -> None:
        super().__init__()
        self.needed = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not is_random(func):
            return func(*args, **(kwargs or {}))
        self.needed |= _scattered(args) and _dropout(func) is None
        return in_order(func, args, kwargs or {})


class Constants(Mode):
    """Has random operations return constants, whatever the shape and the layout that they fill.

    PyTorch's kernels of attention count as random because they may leave out weights; here they
    leave out none.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if (at := _dropout(func)) is not None:
            args = (*args[:at], *[0.0 for _ in args[at : at + 1]], *args[at + 1 :])
        result = func(*args, **(kwargs or {}))
        if at is not None or not is_random(func):
            return result
        if isinstance(result, tuple):  # native_dropout: the output and its mask
            return args[0].clone(), torch.ones_like(result[1])
        return result.fill_(0.5 if result.is_floating_point() else 0)


@cache
def _dropout(operation: Any) -> int | None:
    """Return where among its arguments attention, or its gradient, has its rate of dropout."""
    names = [argument.name for argument in operation._schema.arguments]
    return names.index("dropout_p") if "dropout_p" in names else None


def is_random(operation: Any) -> bool:
    """Whether ``operation`` draws from PyTorch's generators."""
    return torch.Tag.nondeterministic_seeded in getattr(operation, "tags", ())


@contextmanager
def set_aside() -> Iterator[None]:
    """Leave the clients' numbers as they are, whatever is drawn inside."""
    before = [*_current]
    _current.clear()
    try:
        yield
    finally:
        _current[:] = before


@cache
def as_clients_draw(operation: Any) -> Callable[..., Any]:
    """Return ``operation``, a random one of a trace, such that each client draws its own."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return _current[-1](operation, args, kwargs) if _current else operation(*args, **kwargs)

    return run


class Drawing:
    """Has every client draw from PyTorch as if it trained alone, seeded by its own seed.

    Args:
        device: where clients train.
        scattered: whether the model draws for tensors whose elements are in another order in
            memory, see :func:`in_order`.
    """

    def __init__(self, device: torch.device, *, scattered: bool) -> None:
        self._device, self._scattered, self._needed = device, scattered, False

    def run(self, seeds: Sequence[int], act: Callable[[], T]) -> T:
        """Return what ``act`` returns.

        Drawing for each client takes time, so it is done only once a call has drawn at all; that
        call is repeated.

        Args:
            seeds: one for each client.
            act: trains the clients, from the same state at every call. Its random operations take
                the rows of their arguments, or the first size of their result, to be the clients'.

        Raises:
            UserError: the rows of a random operation are not the clients'.
        """
        if len(seeds) == 1:
            ordered = InOrder() if self._scattered else nullcontext()
            with seeded(self._device, seeds[0]), seeded_elsewhere(seeds[0]), ordered:
                return act()
        if not self._needed:
            generators = default_generators(self._device)
            with seeded(self._device, 0):
                before = [each.get_state() for each in generators]
                result = act()
                after = [each.get_state() for each in generators]
            if all(map(torch.equal, before, after)):
                return result
            self._needed = True
        with _own_draws(self._device, seeds):
            return act()


@contextmanager
def _own_draws(device: torch.device, seeds: Sequence[int]) -> Iterator[None]:
    with seeded(device, 0):
        draws = _Draws(device, seeds)
        _current.append(draws)
        try:
            with _Mode(draws):
                yield
        finally:
            _current.pop()
