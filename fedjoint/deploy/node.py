"""A node of a deployment: Flower's SuperNode, with its clients' data."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedjoint._util.net import free_port
from fedjoint._util.private import keep_to_owner
from fedjoint.deploy.address import certificate, distrust, join, parse
from fedjoint.errors import UserError
from fedjoint.flower.programs import Connection

log = logging.getLogger("fedjoint.deploy")

_AGAIN, _MOST = 2.0, 60.0  # seconds before a SuperNode is started again


def node_command(
    name: str,
    server: str,
    state: Path,
    clients: Sequence[int],
    data: dict[str, Any],
    keys: Path | None,
    insecure: bool,
    foreign_code: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of a SuperNode.

    Args:
        name: what people call the node.
        server: ``host:port``.
        state: the node's folder, where heads and private state stay.
        clients: ids of the clients that live here.
        data: see :func:`fedjoint.node.own_data.own_data`.
        keys: the node's folder of those made by ``fedjoint keys``.
        insecure: connect unencrypted, beyond the loopback too.
        foreign_code: let runs name code by file or module, beside this node's own data.

    Raises:
        UserError: the connection is not to be made so, or an id is wrong.
    """
    if not clients or len(set(clients)) < len(clients) or min(clients) < 0:
        raise UserError("--clients: give different ids from 0, comma-separated")
    host, port = parse(server)
    keep_to_owner(state)
    secure = certificate(host, keys, insecure, ("ca.pem", "node.key"))
    connection = Connection.make(
        state / "flower", server, keys / "ca.pem" if keys and secure else None
    )
    values = {
        "name": name,
        "state": str(state.resolve()),
        "clients": list(clients),
        "data": data,
        "foreign_code": foreign_code,
    }
    # Flower's own format cannot hold a text with quotes and spaces in it.
    packed = base64.b64encode(json.dumps(values).encode()).decode()
    if keys and secure and (why := distrust(host, port, keys / "ca.pem")):
        log.error("%s", why)
    command = [sys.executable, "-m", "fedjoint.flower.supernode", "--superlink", join(host, port)]
    command += ["--port", str(free_port())]
    command += ["--node-config", f'fedjoint="{packed}"']
    if keys and secure:
        command += ["--root-certificates", str(keys / "ca.pem")]
        command += ["--auth-supernode-private-key", str(keys / "node.key")]
    else:
        command += ["--insecure"]
    return command, connection.environment()


def run_node(make: Callable[[], tuple[list[str], dict[str, str]]]) -> int:
    """Run a SuperNode, again whenever it ends, until a signal comes; return its exit status.

    A SuperNode ends where the server cannot be reached for long, or does not know its key.

    Args:
        make: returns the command and environment, see :func:`node_command`.
    """
    stopped = threading.Event()
    process: subprocess.Popen[bytes] | None = None

    def stop(*_: object) -> None:
        stopped.set()
        if process:
            process.terminate()

    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, stop)
    os.umask(0o077)  # what it and its apps write is its own
    pause = _AGAIN
    while True:
        command, environment = make()
        began = time.monotonic()
        process = subprocess.Popen(command, env=environment)
        status = process.wait()
        if stopped.is_set():
            return status
        # It takes seconds to start: one that is refused must not keep the machine busy.
        pause = min(2 * pause, _MOST) if time.monotonic() - began < 10 * _MOST else _AGAIN
        log.warning(
            "the SuperNode ended (status %d): the server is away, or does not know this node's "
            "key; trying again in %g s",
            status,
            pause,
        )
        if stopped.wait(pause):
            return status
