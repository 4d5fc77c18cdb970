"""The Flower ClientApp, for simulation and deployment alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedjoint import messages
from fedjoint.config import check
from fedjoint.errors import UserError
from fedjoint.node import Node
from fedjoint.problem import Problem, build_problem
from fedjoint.rundir import RunDir


def make_app(problem: Problem | None = None, *, write_through: bool = True) -> ClientApp:
    """Return a ClientApp that hosts the clients of ``problem``.

    A simulated node keeps private state in the run directory, which is on its machine. A
    deployed node's own configuration (``flower-supernode --node-config``, written by
    ``fedjoint client``) has ``state`` (a file), ``data`` (a JSON table that replaces the run's
    ``data``) and ``clients`` (ids, comma-separated).

    Args:
        problem: tasks, backbone and data; by default what the run's configuration describes.
        write_through: write private state after every message. Without it, the process has to
            live as long as the run.
    """
    app = ClientApp()
    nodes: dict[str, Node] = {}

    def answer(message: Message, context: Context) -> Message:
        request = messages.settings(message)
        key = f"{request['run']}\n{request['config']}"
        if key not in nodes:
            nodes.clear()  # a node serves one run at a time
            nodes[key] = make_node(request, context, problem, write_through)
        return Message(nodes[key].handle(message), reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    app.query()(answer)
    app.query("persist")(answer)
    return app


def make_node(
    request: Mapping[str, Any], context: Context, problem: Problem | None, write_through: bool
) -> Node:
    """Build the node that ``context`` describes, for the run that ``request`` belongs to.

    Raises:
        UserError: the configuration is wrong, or the node was started without its own.
    """
    own, settings = context.node_config, request["config"]
    simulated = "partition-id" in own
    if not simulated and "state" not in own:
        raise UserError("this SuperNode has no state file: start it with fedjoint client")
    if not simulated and "data" in own:
        settings = {**settings, "data": json.loads(str(own["data"]))}
    config = check(settings, "config from the server")
    problem = problem or build_problem(config)
    if simulated:
        store = RunDir(Path(request["run"])).state
        return Node(problem, config, store, write_through=write_through)
    ids = [int(c) for c in str(own.get("clients", "")).split(",") if c.strip()]
    clients = np.array(ids or range(len(problem.data.sizes)), np.int64)
    return Node(problem, config, Path(str(own["state"])), clients, write_through=True)


app = make_app()
