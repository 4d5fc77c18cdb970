"""The Flower ClientApp, for simulation and deployment alike."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedjoint._util.logs import event, log_to
from fedjoint._util.wording import plain
from fedjoint.config.load import check
from fedjoint.errors import ANYTHING, OpenError, UserError
from fedjoint.node.jobs import openly
from fedjoint.node.mods import Mods, load_mods
from fedjoint.node.node import Node
from fedjoint.node.outward import outward
from fedjoint.node.own_data import check_registered, with_own_data
from fedjoint.node.store import StateStore
from fedjoint.node.way import with_path
from fedjoint.problem import Problem, build_problem
from fedjoint.protocol import wire
from fedjoint.protocol.requests import TELL, Header, TellRequest
from fedjoint.runs.directory import RunDir

log = logging.getLogger("fedjoint.node.node")


def make_app(problem: Problem | None = None, *, write_through: bool = True) -> ClientApp:
    """Return a ClientApp that hosts the clients of ``problem``.

    A simulated node keeps private state in the run directory, which is on its machine. A
    deployed node's own configuration has ``fedjoint``: ``name``, ``state`` (a folder), ``clients``
    (ids) and ``data`` (settings that replace those of the run's ``data``; empty where the clients
    are some of those of the run's own data), and ``mods``, references, as JSON.

    Args:
        problem: tasks, backbone and data; by default what the run's configuration describes.
        write_through: write private state after every message. Without it, the process has to
            live as long as the run.
    """
    app = ClientApp()
    nodes: dict[str, Node] = {}

    def answer(message: Message, context: Context) -> Message:
        header = wire.read(Header, message)
        key = f"{header.id}\n{header.run}\n{header.config}"
        if key not in nodes:
            nodes.clear()  # a node serves one run at a time
            nodes[key] = make_node(header, context, problem, write_through)
        return Message(nodes[key].handle(message), reply_to=message)

    def deployed_or_not(message: Message, context: Context) -> Message:
        if "fedjoint" not in context.node_config:
            return answer(message, context)
        with own_log(message, context):
            if message.metadata.message_type == TELL:
                return Message(told(message), reply_to=message)
            reply = answer(message, context)
        reply.content = wire.bundle(reply.content)
        return reply

    app.train()(deployed_or_not)
    app.evaluate()(deployed_or_not)
    app.query()(deployed_or_not)
    app.query("persist")(deployed_or_not)
    app.query("tell")(deployed_or_not)
    return app


@contextmanager
def own_log(message: Message, context: Context) -> Iterator[None]:
    """Log on a deployed node what is asked of it and how that ends.

    Raises:
        UserError: it fails; the line names the node, and says nothing of data of its own.
    """
    own = _own(context)
    kind, began = message.metadata.message_type, time.perf_counter()
    try:
        log_to(Path(own["state"]) / "log.jsonl", watch=True)
        yield
    except ANYTHING as error:
        event(log, logging.ERROR, kind, f"{kind}: {openly(error)}", run_id=context.run_id)
        if not isinstance(error, UserError):
            log.exception("%s failed", kind)
        why = outward(error) if own["data"] else openly(error)
        raise UserError(f"node {own['name']}: {why}") from None
    number, seconds = wire.read(Header, message).round, round(time.perf_counter() - began, 3)
    text = f"{kind} of round {number}: done"
    event(log, logging.INFO, kind, text, run_id=context.run_id, round=number, seconds=seconds)


def told(message: Message) -> RecordDict:
    """Say what the server of a run tells this node.

    Raises:
        UserError: the message is damaged.
    """
    request = TellRequest.unpack(message)
    run = Path(request.header.run).name
    event(log, logging.ERROR, "told", f"the run {run} leaves this node out: {plain(request.text)}")
    return wire.pack({})


def _own(context: Context) -> dict[str, Any]:
    return json.loads(str(context.node_config["fedjoint"]))


def make_node(
    header: Header, context: Context, problem: Problem | None, write_through: bool
) -> Node:
    """Build the node that ``context`` describes, for the run that ``header`` belongs to.

    Raises:
        UserError: the configuration is wrong, or the node was started without its own.
    """
    settings, given = header.config, context.node_config
    if "partition-id" in given:  # simulated
        config = check(settings, "config from the server")
        store = StateStore(RunDir(Path(header.run)).state, header.id)
        name = f"worker {given['partition-id']}"
        problem = problem or build_problem(config)
        return Node(problem, config, store, write_through=write_through, name=name)
    if "fedjoint" not in given:
        raise OpenError("this node has no clients: start it with fedjoint client")
    own = _own(context)
    ids = own["clients"]
    config = with_own_data(settings, own["data"], ids)
    if own["data"] and not own.get("foreign_code"):
        check_registered(config, header.method, own["data"])
    if own["data"]:
        problem = problem or build_problem(config, ids)
        places = {client: place for place, client in enumerate(ids)}
    else:
        problem = problem or build_problem(config)
        places = {client: client for client in ids}
        absent = [client for client in ids if client >= len(problem.data.sizes)]
        if absent:
            raise OpenError(f"client {absent[0]} is not in the run's data; fix --clients")
    store = StateStore(Path(own["state"]) / f"{Path(header.run).name}.sqlite", header.id)
    return Node(
        problem,
        with_path(problem, config, store),
        store,
        places,
        write_through=True,
        name=own["name"],
        discreet=bool(own["data"]),
        mods=Mods(load_mods(own["mods"]), context) if own.get("mods") else None,
    )


app = make_app()
