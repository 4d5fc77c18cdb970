"""A node of a deployment: it joins a server, with its clients' data."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from pathlib import Path

from fedjoint._util.logs import log_to
from fedjoint._util.private import keep_to_owner
from fedjoint.deploy.address import check_keys, join, parse
from fedjoint.deploy.expiry import calendar
from fedjoint.deploy.exposition import Exposition
from fedjoint.deploy.figures import NodeFigures
from fedjoint.deploy.member import Member
from fedjoint.deploy.resident import OwnNode, Resident
from fedjoint.deploy.stop import Stop
from fedjoint.deploy.trouble import Trouble
from fedjoint.flower.fleet import Fleet

log = logging.getLogger("fedjoint.deploy")


def run_node(
    own: OwnNode, server: str, keys: Path | None, insecure: bool, metrics: str | None = None
) -> None:
    """Be a node until a signal comes; what the node is doing then is finished first.

    Args:
        own: what the node is.
        server: ``host:port``.
        keys: the node's folder of those made by ``fedjoint keys``.
        insecure: connect unencrypted, beyond the loopback too.
        metrics: ``host:port`` of health and metrics; None: none.

    Raises:
        UserError: the connection is not to be made so, or the state folder is not writable.
    """
    host, port = parse(server)
    check_keys(host, keys, insecure, ("ca.pem", "node.key"))
    authority, key = (keys / "ca.pem", keys / "node.key") if keys else (None, None)
    keep_to_owner(Path(own.state))
    os.umask(0o077)  # what it and its worker write is its own
    log_to(Path(own.state) / "log.jsonl", rotate=True)
    address = join(host, port)
    figures = NodeFigures()
    with ExitStack() as stack:
        if authority:
            stack.enter_context(calendar([authority]))
        if metrics:
            stack.enter_context(Exposition(metrics, figures))
        stop, worker = stack.enter_context(Stop()), stack.enter_context(Resident(own))
        fleet = Fleet(address, authority, key)
        clients = ", ".join(map(str, own.clients))
        log.info("node %s (clients %s), for the server at %s", own.name, clients, address)
        Member(fleet, worker, stop, Trouble(address, authority), figures).run()
        log.info("stopped by a signal")
