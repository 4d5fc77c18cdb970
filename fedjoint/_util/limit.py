"""A limit to how long a client's own code may take."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 1e8  # seconds that the system's timer takes
_SOON = 0.05  # seconds


class LateError(BaseException):
    """Time is up. No ``except Exception`` of a user's own code catches it."""


class _Guard:
    """Whether the code that runs may not be interrupted just now."""

    held = False
    late = False


_guard = _Guard()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise a :class:`LateError` inside, once ``seconds`` have passed.

    Python code is interrupted wherever it is, sleeping, reading or computing; a call into a library
    is once it returns. Outside the main thread of a process nothing is interrupted.

    Args:
        seconds: above 0.
    """
    seconds = min(seconds, _LONGEST)
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return
    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, _interrupt)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # someone else's alarm
            signal.setitimer(signal.ITIMER_REAL, max(_SOON, left - (time.monotonic() - began)))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep :func:`limited` from interrupting what is done inside; it does so right after."""
    _guard.held = True
    try:
        yield
    finally:
        late, _guard.held, _guard.late = _guard.late, False, False
    if late:
        raise LateError


def _interrupt(*_: object) -> None:
    if not _guard.held:
        raise LateError
    _guard.late = True
