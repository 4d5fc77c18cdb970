"""Ctrl-C: at any instant a program ends with status 130, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: The exit status of a program that was interrupted.
STATUS = 128 + signal.SIGINT

_came = threading.Event()


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


def came() -> bool:
    """Return whether Ctrl-C came: what else goes wrong is a consequence."""
    return _came.is_set()


@contextmanager
def held() -> Iterator[None]:
    """Put Ctrl-C off until what is done inside is done, so that it is done in full.

    Outside the main thread nothing is interrupted anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or before is None:
        yield
        return
    late: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: late.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if late:
            signal.raise_signal(signal.SIGINT)


def _leave(*_: object) -> None:
    os._exit(STATUS)


def _raise(*_: object) -> None:
    _came.set()
    raise KeyboardInterrupt
