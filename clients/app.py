"""The Flower ClientApp, for simulation and deployment alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedjoint import messages
from fedjoint.config import check
from fedjoint.errors import UserError
from fedjoint.node import Node
from fedjoint.problem import Problem, build_problem


def make_app(problem: Problem | None = None, *, write_through: bool = True) -> ClientApp:
    """Return a ClientApp that hosts the clients of ``problem``.

    A simulated node's context has ``run-dir`` in its run configuration, for private state. A
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
            nodes[key] = make_node(request["config"], context, problem, write_through)
        return Message(nodes[key].handle(message), reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    app.query()(answer)
    app.query("persist")(answer)
    return app


def make_node(
    settings: dict, context: Context, problem: Problem | None, write_through: bool
) -> Node:
    """Build the node that ``context`` describes, for a run with the given configuration."""
    own = context.node_config
    deployed = "state" in own
    if deployed and "data" in own:
        settings = {**settings, "data": json.loads(str(own["data"]))}
    config = check(settings, "config from the server")
    problem = problem or build_problem(config)
    if not deployed:
        folder = context.run_config.get("run-dir")
        if write_through and not folder:
            raise UserError("no place for the clients' private state: set run-dir, or node state")
        store = Path(str(folder)) / "state.sqlite" if folder else None
        return Node(problem, config, store, write_through=write_through)
    first = [int(c) for c in str(own.get("clients", "")).split(",") if c.strip()]
    clients = np.array(first or range(len(problem.data.sizes)), np.int64)
    return Node(problem, config, Path(str(own["state"])), clients, write_through=True)


app = make_app()
