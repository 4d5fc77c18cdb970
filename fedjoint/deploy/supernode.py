"""Flower's SuperNode, quick to act: ``python -m fedjoint.deploy.supernode``, same options."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

from flwr.supercore import heartbeat
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli import flower_supernode

_FIRST, _MOST = 0.1, 3.0  # seconds between two looks for a message
_BEAT = 10  # seconds between two signs of life: the least that a SuperLink accepts

Found = TypeVar("Found")


def main() -> None:
    """Run the SuperNode."""
    own = start_client_internal.http_request_response

    @contextmanager
    def connection(*arguments: Any, **options: Any) -> Iterator[tuple[Any, ...]]:
        with own(*arguments, **options) as (node, receive, *rest):
            yield node, patient(receive), *rest

    # Flower offers none of this as an option. Its SuperNode looks every three seconds, which is
    # most of a short round; its apps import PyTorch for every message; and a SuperLink waits two
    # signs of life long for a node that has died.
    start_client_internal.http_request_response = connection
    start_client_internal.subprocess = SimpleNamespace(Popen=_superexec)  # type: ignore[assignment]
    fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = _BEAT
    heartbeat.HEARTBEAT_DEFAULT_INTERVAL = _BEAT
    flower_supernode()


def _superexec(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start our SuperExec in place of Flower's, with the options in ``command``."""
    # Not as a module: its apps would import that, and with it this fedjoint, too.
    code = "from fedjoint.deploy.superexec import main; main()"
    return subprocess.Popen([sys.executable, "-P", "-c", code, *command[1:]])


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
