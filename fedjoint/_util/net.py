"""Ports of this machine, and who listens where."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

_LISTENS = "0A"  # as the kernel writes the state of a socket


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


def listener(port: int, proc: Path = Path("/proc")) -> str | None:
    """Return which process listens on a port, in words; None where that cannot be seen."""
    sockets = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for fields in _rows(proc / "net" / table)
        if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port
    }
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if any(str(link.readlink()) in sockets for link in (folder / "fd").iterdir()):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                return f"process {folder.name} ({command.decode(errors='replace').strip()[:200]})"
    return None


def _rows(table: Path) -> list[list[str]]:
    try:
        return [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
