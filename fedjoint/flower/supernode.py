"""Flower's SuperNode, quick to act: ``python -m fedjoint.flower.supernode``, same options."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

from fastapi import FastAPI
from flwr.supercore import heartbeat
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode import main as supernode_app
from flwr.supernode.cli import flower_supernode

from fedjoint.flower.own_user import OwnUser

_FIRST, _MOST = 0.1, 3.0  # seconds between two looks for a message
_BEAT = 10  # seconds between two signs of life: the least that a SuperLink accepts

Found = TypeVar("Found")


def main() -> None:
    """Run the SuperNode."""
    own = start_client_internal.http_request_response
    asked: list[Sequence[str]] = []

    @contextmanager
    def connection(*arguments: Any, **options: Any) -> Iterator[tuple[Any, ...]]:
        with own(*arguments, **options) as (node, receive, *rest):
            for command in asked:
                _start_superexec(command)
            yield node, patient(receive), *rest

    made = supernode_app.create_app

    def create_app(*arguments: Any, **options: Any) -> FastAPI:
        app = made(*arguments, **options)
        app.add_middleware(OwnUser)
        return app

    # Other users of this machine reach the port, too, and Flower asks for no proof there.
    supernode_app.create_app = create_app
    # Flower has no option for any of this. It looks for a message every three seconds, which is
    # most of a short round.
    start_client_internal.http_request_response = connection
    # Its apps import PyTorch for every message; and what starts them starts before the server
    # has accepted the node.
    start_client_internal.subprocess = SimpleNamespace(Popen=asked.append)  # type: ignore[assignment]
    # The server waits two signs of life long for a node that has died.
    fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = _BEAT
    heartbeat.HEARTBEAT_DEFAULT_INTERVAL = _BEAT
    flower_supernode()


def _start_superexec(command: Sequence[str]) -> None:
    """Start our SuperExec in place of Flower's, with the options in ``command``."""
    # Not as a module: its apps would import that, and with it this fedjoint, too.
    code = "from fedjoint.flower.superexec import main; main()"
    subprocess.Popen([sys.executable, "-P", "-c", code, *command[1:]])


def patient(
    receive: Callable[[], Found | None], sleep: Callable[[float], None] = time.sleep
) -> Callable[[], Found]:
    """Return a ``receive`` that waits for a message, and looks often while one may come soon."""

    def wait() -> Found:
        pause = _FIRST
        while (found := receive()) is None:
            sleep(pause)
            pause = min(_MOST, 1.2 * pause)
        return found

    return wait


if __name__ == "__main__":
    main()
