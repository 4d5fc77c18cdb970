"""The worker of a node, a process of its own: see :mod:`fedjoint.deploy.resident`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from importlib import import_module
from multiprocessing.connection import Connection

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedjoint._util.logs import start_logging
from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.flower.parcels import Parcel, be_node, failure


def main() -> None:
    """Answer one message after the other, until the node is gone."""
    # The node has these from a terminal or from systemd, and says when to end.
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    threading.Thread(target=_end_with_node, daemon=True).start()
    start_logging()
    pipe = Connection(int(sys.argv[1]))
    own, app = pipe.recv_bytes().decode(), import_module("fedjoint.clients.app").make_app()
    context: Context | None = None
    try:
        while True:
            where = json.loads(pipe.recv_bytes())
            asked, run, node = Parcel.receive(pipe), where["run"], where["node"]
            if context is None or context.run_id != run:
                context = Context(run, node, {"fedjoint": own}, RecordDict(), {})
            be_node(run, node)
            Parcel.of(_answer(app, asked.message(), context)).send(pipe)
    except (EOFError, OSError):
        return  # the node has ended


def _answer(app: ClientApp, message: Message, context: Context) -> Message:
    try:
        return app(message, context)
    except ANYTHING as error:
        why = str(error) if isinstance(error, UserError) else said(error)
        return failure(why, message)


def _end_with_node() -> None:
    """Wait until the node is gone, which closes our standard input; then end at once."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
