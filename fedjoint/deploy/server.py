"""The server of a deployment: Flower's SuperLink, with the nodes whose keys it knows."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fedjoint._util.logs import log_to
from fedjoint._util.net import listener, listens
from fedjoint._util.private import keep_to_owner
from fedjoint.deploy.address import check_keys, distrust, join, parse
from fedjoint.deploy.expiry import calendar, ending
from fedjoint.deploy.exposition import Exposition
from fedjoint.deploy.figures import ServerFigures
from fedjoint.deploy.registration import registrar
from fedjoint.errors import UserError
from fedjoint.flower.control import Control
from fedjoint.flower.programs import Connection

log = logging.getLogger("fedjoint.deploy")

_FILES = ("server/ca.pem", "server/server.pem", "server/server.key")


def connect(address: str, state: Path, keys: Path | None, insecure: bool) -> Connection:
    """Return the connection of an operator to a server.

    Args:
        address: ``host:port`` of the server.
        state: parent of the folders of Flower's files, one for each server.
        keys: folder made by ``fedjoint keys``.
        insecure: connect unencrypted, beyond the loopback too.

    Raises:
        UserError: see :func:`fedjoint.deploy.address.check_keys`.
    """
    host, port = parse(address)
    check_keys(host, keys, insecure, _FILES[:1])
    folder = state / f"{host.replace(':', '-')}-{port}"
    return Connection.make(folder, join(host, port), keys / _FILES[0] if keys else None)


def check_trust(address: str, keys: Path | None) -> None:
    """Check that a server's certificate is what ``keys`` promise.

    Raises:
        UserError: it is not; the line says why, where Flower's own does not.
    """
    if keys and (why := distrust(*parse(address), keys / _FILES[0])):
        raise UserError(why)


def control(address: str, keys: Path | None) -> Control:
    """Return an operator's interface of a server.

    Args:
        address: ``host:port`` of the server.
        keys: folder made by ``fedjoint keys``; None where the server has none.

    Raises:
        UserError: the address is none, or the folder has no keys.
    """
    host, port = parse(address)
    check_keys(host, keys, keys is None, _FILES[:1])
    return Control(join(host, port), keys / _FILES[0] if keys else None)


def endings(keys: Path) -> list[str]:
    """Return what is to be said of the server's certificates, where they are about to end."""
    now = datetime.datetime.now(datetime.UTC)
    said = (ending(keys / file, now) for file in _FILES[:2])
    return [text for text in said if text]


def run_server(
    address: str, state: Path, keys: Path | None, insecure: bool, metrics: str | None = None
) -> None:
    """Run a SuperLink until a signal comes.

    Args:
        address: ``host:port`` to listen on.
        state: folder of its database, which outlives it.
        keys: folder made by ``fedjoint keys``; nodes then have to prove theirs.
        insecure: accept any node, unencrypted, beyond the loopback too.
        metrics: ``host:port`` of health and metrics; None: none.

    Raises:
        UserError: it is not to be started so.
    """
    host, port = parse(address)
    check_keys(host, keys, insecure, _FILES)
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    if listens(local, port):
        who = listener(port) or "someone"
        raise UserError(f"{who} listens on {address} already: stop that, or choose another port")
    os.umask(0o077)  # what it and its runs write is its own
    keep_to_owner(state)
    connection = connect(join(local, port), state, keys, insecure)
    os.environ |= connection.environment()
    log_to(state / "log.jsonl", rotate=True)
    options = ["--host", host, "--port", str(port)]
    options += ["--database", str((state / "superlink.db").resolve())]
    options += ["--disable-runtime-dependency-installation", "--isolation", "process"]
    if keys:
        names = ("--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile")
        for option, file in zip(names, _FILES, strict=True):
            options += [option, str(keys / file)]
        options += ["--enable-supernode-auth"]
    else:
        options += ["--insecure"]
    trust = keys / _FILES[0] if keys else None
    nodes = (keys / "nodes").resolve() if keys else None

    # Not before they are needed: they take a second, and the command line uses this module.
    from fedjoint.flower.launcher import Launcher
    from fedjoint.flower.superlink import run_superlink

    launchers: list[Launcher] = []

    @contextmanager
    def beside(superlink: Any) -> Iterator[None]:
        run = ["--runtime-api-address", join(local, port), "--parent-pid", str(os.getpid())]
        run += ["--root-certificates", str(trust)] if trust else ["--insecure"]
        with ExitStack() as stack:
            launchers.append(stack.enter_context(Launcher(superlink, run, nodes)))
            if metrics:
                stack.enter_context(Exposition(metrics, ServerFigures(superlink)))
            if keys:
                stack.enter_context(calendar([keys / file for file in _FILES[:2]]))
                control = stack.enter_context(Control(join(local, port), trust))
                stack.enter_context(registrar(control, keys))
            log.info("the server listens on %s; its log is %s", address, state / "log.jsonl")
            yield
        log.info("stopped by a signal")

    def drain() -> None:
        for launcher in launchers:
            launcher.drain()

    run_superlink(options, beside, drain, nodes)
