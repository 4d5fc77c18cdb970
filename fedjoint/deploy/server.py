"""The server of a deployment: Flower's SuperLink, with the nodes whose keys it knows."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from fedjoint._util.net import listens, wait_for
from fedjoint._util.private import keep_to_owner
from fedjoint.deploy.address import certificate, distrust, join, parse
from fedjoint.errors import UserError
from fedjoint.flower.badges import FOLDER
from fedjoint.flower.programs import Connection

log = logging.getLogger("fedjoint.deploy")

_FILES = ("server/ca.pem", "server/server.pem", "server/server.key")
_START = 90.0  # seconds


def connect(address: str, state: Path, keys: Path | None, insecure: bool) -> Connection:
    """Return the connection of an operator to a server.

    Args:
        address: ``host:port`` of the server.
        state: parent of the folders of Flower's files, one for each server.
        keys: folder made by ``fedjoint keys``.
        insecure: connect unencrypted, beyond the loopback too.

    Raises:
        UserError: see :func:`fedjoint.deploy.address.certificate`.
    """
    host, port = parse(address)
    secure = certificate(host, keys, insecure, _FILES[:1])
    trust = keys / "server/ca.pem" if keys and secure else None
    folder = state / f"{host.replace(':', '-')}-{port}"
    return Connection.make(folder, join(host, port), trust)


def check_trust(address: str, keys: Path | None) -> None:
    """Check that a server's certificate is what ``keys`` promise.

    Raises:
        UserError: it is not; the line says why, where Flower's own does not.
    """
    if keys and (why := distrust(*parse(address), keys / _FILES[0])):
        raise UserError(why)


def run_server(address: str, state: Path, keys: Path | None, insecure: bool) -> int:
    """Run a SuperLink until it ends or a signal comes; return its exit status.

    Args:
        address: ``host:port`` to listen on.
        state: folder of its database, which outlives it.
        keys: folder made by ``fedjoint keys``; nodes then have to prove theirs.
        insecure: accept any node, unencrypted, beyond the loopback too.

    Raises:
        UserError: it is not to be started so, or does not start.
    """
    host, port = parse(address)
    keep_to_owner(state)
    secure = certificate(host, keys, insecure, _FILES)
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    if listens(local, port):
        raise UserError(f"someone listens on {address} already: choose another port")
    connection = connect(join(local, port), state, keys, insecure)
    command = [sys.executable, "-m", "fedjoint.flower.superlink"]
    command += ["--host", host, "--port", str(port)]
    command += ["--database", str((state / "superlink.db").resolve())]
    command += ["--disable-runtime-dependency-installation"]
    if keys and secure:
        names = ("--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile")
        for option, file in zip(names, _FILES, strict=True):
            command += [option, str(keys / file)]
        command += ["--enable-supernode-auth"]
    else:
        command += ["--insecure"]
    environment = connection.environment()
    if keys and secure:
        environment[FOLDER] = str((keys / "nodes").resolve())
    os.umask(0o077)  # what it and its runs write is its own
    process = subprocess.Popen(command, env=environment)
    try:
        for kind in (signal.SIGTERM, signal.SIGINT):
            signal.signal(kind, lambda *_: process.terminate())
        if not wait_for(local, port, _START, lambda: process.poll() is None):
            raise UserError(f"the SuperLink did not start on {address}; see its output above")
        if keys:
            check_trust(join(local, port), keys)
            register(connection, keys)
    except BaseException:
        process.terminate()  # and with it whatever it started
        process.wait()
        raise
    return process.wait()


def register(connection: Connection, keys: Path) -> None:
    """Make the server know the public keys in ``keys/nodes``; those it knows are left alone.

    Raises:
        UserError: the server refuses a key.
    """
    for path in sorted((keys / "nodes").glob("*/node.pub")):
        try:
            connection.call("supernode", "register", str(path), connection.name)
        except UserError as error:
            if "already" not in str(error):
                raise
        else:
            log.warning("registered node %s", path.parent.name)
