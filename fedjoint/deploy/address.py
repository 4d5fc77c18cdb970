"""Addresses, and whether a connection to one may go without keys."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from pathlib import Path

from fedjoint.errors import UserError


def parse(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        UserError: it is not of this form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"{address!r}: write the server's address as HOST:PORT")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine, by a way that leaves it nowhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def certificate(host: str, keys: Path | None, insecure: bool, files: tuple[str, ...]) -> bool:
    """Return whether to use the keys in ``keys``.

    Args:
        host: of the server.
        keys: folder of the keys.
        insecure: whether the user accepts an open connection.
        files: what has to be in ``keys``.

    Raises:
        UserError: neither keys nor consent were given for a host beyond the loopback, or a key
            is missing.
    """
    if keys is not None:
        if insecure:
            raise UserError("give --keys or --insecure, not both")
        for name in files:
            if not (keys / name).is_file():
                raise UserError(f"{keys / name}: no such file; make keys with fedjoint keys")
        return True
    if not insecure and not is_loopback(host):
        raise UserError(
            f"{host} is not the loopback address: give --keys (see fedjoint keys), or --insecure "
            "to let anyone on the way read and change what travels"
        )
    return False


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
