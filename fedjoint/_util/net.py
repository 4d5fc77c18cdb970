"""Ports of this machine, and who listens where."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(
    host: str, port: int, seconds: float, alive: Callable[[], bool] = lambda: True
) -> bool:
    """Wait until someone accepts connections there; return False where nobody does in time.

    Args:
        host: where.
        port: where.
        seconds: how long.
        alive: whether there is still something to wait for.
    """
    end = time.monotonic() + seconds
    while not listens(host, port):
        if not alive() or time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def listens(host: str, port: int) -> bool:
    """Return whether someone accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True
