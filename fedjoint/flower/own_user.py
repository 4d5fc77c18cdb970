"""A local port for the processes of its own user alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fedjoint.flower.gate import App, Receive, Scope, Send, refuse

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _USER = 1, 2, 7  # columns
_REFUSAL = b"this port is for the user of this node alone"


class OwnUser:
    """ASGI middleware that answers only peers on this machine that run as this process's user.

    Whose a connection is, Linux says in ``/proc/net/tcp``. On other systems everybody passes who
    reaches the port.

    Args:
        app: what is behind.
    """

    def __init__(self, app: App):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or own_user(scope):
            await self.app(scope, receive, send)
        else:
            await refuse(scope, send, 403, _REFUSAL)


def own_user(scope: Scope, tables: Iterable[Path] = _TABLES) -> bool:
    """Return whether a request comes from a process of this user."""
    known = [table for table in tables if table.exists()]
    if not known:
        return True
    client, server = scope.get("client"), scope.get("server")
    if not client or not server:
        return False
    found = {user for table in known for user in _owners(table, client[1], server[1])}
    return found == {os.getuid()}


def _owners(table: Path, client: int, server: int) -> Iterable[int]:
    """Yield the users of the sockets with these two ports."""
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(fields[place].rpartition(":")[2], 16) for place in (_LOCAL, _REMOTE)]
        if ports == [client, server]:
            yield int(fields[_USER])
