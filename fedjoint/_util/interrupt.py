"""Ctrl-C and SIGTERM: at any instant a program ends with their status, and leaves nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

_KINDS = (signal.SIGINT, signal.SIGTERM)

_came: list[int] = []  # numbers of signals


def leave_at_once() -> None:
    """Have Ctrl-C end the process as it is, which is right as long as nothing has begun.

    While modules are imported, a KeyboardInterrupt could come out as any error. Where the program
    was started so that Ctrl-C is ignored, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)


def raise_from_now_on() -> None:
    """Have Ctrl-C raise a KeyboardInterrupt, where it has ended the process so far."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, _raise)


def raise_at_sigterm() -> None:
    """Have SIGTERM raise a KeyboardInterrupt, which no code takes for an error of its own."""
    signal.signal(signal.SIGTERM, _raise)


def came() -> bool:
    """Return whether one of them came: what else goes wrong is a consequence."""
    return bool(_came)


def exit_status() -> int:
    """Return the exit status of a program that was interrupted."""
    return 128 + (_came[0] if _came else signal.SIGINT)


@contextmanager
def held() -> Iterator[None]:
    """Put both off until what is done inside is done, so that it is done in full.

    Nothing that is called inside can take them for itself: at SIGTERM, Ray would leave amid its
    own start, with a status of its own. Outside the main thread nothing is interrupted anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.getsignal(kind) for kind in _KINDS}
    before = {k: handler for k, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    late: list[int] = []
    for kind in before:
        signal.signal(kind, lambda number, _: late.append(number))
    module: Any = signal
    take, module.signal = signal.signal, _unless(before, signal.signal)
    try:
        yield
    finally:
        module.signal = take
        for kind, handler in before.items():
            signal.signal(kind, handler)
        if late:
            signal.raise_signal(late[0])


def _unless(kinds: Collection[int], take: Callable[..., Any]) -> Callable[..., Any]:
    """Return what takes a signal as ``take`` does, unless it is one of ``kinds``."""
    return lambda kind, new: signal.getsignal(kind) if kind in kinds else take(kind, new)


def _leave(*_: object) -> None:
    os._exit(exit_status())


def _raise(number: int, _frame: object) -> None:
    _came.append(number)
    raise KeyboardInterrupt
