"""``fedjoint keys``, ``server`` and ``client``, which do without PyTorch."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from fedjoint._util.logs import FORMATS, LEVELS, choose_logging
from fedjoint.cli.common import own_ids, parts, say
from fedjoint.cli.settings_file import Config
from fedjoint.deploy.keys import make_keys
from fedjoint.deploy.node import run_node
from fedjoint.deploy.resident import OwnNode
from fedjoint.deploy.server import run_server
from fedjoint.errors import UserError
from fedjoint.node.own_data import own_data
from fedjoint.registry import anchored

Keys = Annotated[Path | None, typer.Option(help="Folder of keys; see fedjoint keys.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="No encryption and no proof of who is who.")
]
LogLevel = Annotated[str, typer.Option(help=f"One of {', '.join(LEVELS)}.")]
LogFormat = Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")]
Metrics = Annotated[
    str | None, typer.Option(help="HOST:PORT that answers GET /health and /metrics; default: none.")
]
Names = Annotated[str, typer.Option(help="Comma-separated.")]


def keys_command(
    folder: Annotated[Path, typer.Argument(help="Folder for the keys.")],
    hosts: Annotated[
        list[str], typer.Option("--host", help="Names and addresses of the server; repeatable.")
    ] = [],  # noqa: B006 (typer's way)
    nodes: Names = "",
    node: Annotated[str, typer.Option(help="One node, whose key is tied to --clients.")] = "",
    clients: Annotated[str, typer.Option(help="Ids that --node alone may have, as 0,1.")] = "",
) -> None:
    """Make the keys of a deployment, or of more nodes."""
    if bool(node) != bool(clients):
        raise UserError("--node and --clients belong together: whose key, and the ids of its own")
    own = {node: own_ids(clients)} if node else {}
    names = [*parts(nodes), *own]
    hosts = [name for host in hosts for name in parts(host)]
    if not hosts and not (folder / "server/server.pem").exists():
        raise UserError("--host: name the server as the nodes will, such as --host joint.example")
    make_keys(folder, hosts, names, own)
    say(f"server: copy {folder / 'server'} and each node's node.pub")
    for name in names:
        say(f"node {name}: copy {folder / 'nodes' / name}")


def server_command(
    address: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:8000",
    state: Annotated[Path, typer.Option(help="Folder of the server's database.")] = Path("server"),
    keys: Keys = None,
    insecure: Insecure = False,
    log_level: LogLevel = "info",
    log_format: LogFormat = "text",
    metrics: Metrics = None,
    _config: Config = None,
) -> None:
    """Run the server: Flower's SuperLink, which knows the nodes of --keys."""
    choose_logging(log_level, log_format)
    run_server(address, state, keys, insecure, metrics)


def client_command(
    clients: Annotated[str, typer.Option(help="Ids of the clients that live here, as in 0,1.")],
    server: Annotated[str, typer.Option(help="HOST:PORT of the server.")] = "127.0.0.1:8000",
    data: Annotated[
        Path | None,
        typer.Option(help="Their examples, or a TOML table for data; default: the run's own."),
    ] = None,
    tasks: Names = "",
    state: Annotated[Path, typer.Option(help="Folder for heads and other state.")] = Path("node"),
    name: Annotated[str, typer.Option(help="What to call this node.")] = socket.gethostname(),
    keys: Keys = None,
    insecure: Insecure = False,
    log_level: LogLevel = "info",
    log_format: LogFormat = "text",
    metrics: Metrics = None,
    foreign_code: Annotated[
        bool,
        typer.Option("--foreign-code", help="With --data: run code that a run names by its place."),
    ] = False,
    mod: Annotated[
        list[str],
        typer.Option(
            help="A mod of Flower's that updates pass: package.module:name or file.py:name."
        ),
    ] = [],  # noqa: B006 (typer's way)
    _config: Config = None,
) -> None:
    """Run a node, with its clients' data."""
    ids, own = own_ids(clients), own_data(data, parts(tasks))
    choose_logging(log_level, log_format)
    if mod:
        from fedjoint.node.mods import load_mods

        load_mods(mod)
    mods = tuple(map(anchored, mod))
    node = OwnNode(name, str(state.resolve()), ids, own, foreign_code, mods)
    run_node(node, server, keys, insecure, metrics)
