"""``fedjoint keys``, ``server``, ``client``, ``deploy`` and ``status``."""

from __future__ import annotations

import datetime
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from fedjoint.commands.common import Live, Settings, client_ids, console, parts
from fedjoint.commands.simulate import label
from fedjoint.deploy.address import parse, wait_for
from fedjoint.deploy.data import own_data
from fedjoint.deploy.keys import make_keys
from fedjoint.deploy.node import node_command, run_node
from fedjoint.deploy.run import attend, restart, start
from fedjoint.deploy.server import check_trust, connect, register, run_server
from fedjoint.errors import UserError
from fedjoint.report import metrics_table, show_run, table
from fedjoint.rundir import RunDir
from fedjoint.scenario import scenario_config
from fedjoint.simulation import RunResult

Keys = Annotated[Path | None, typer.Option(help="Folder of keys; see fedjoint keys.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="No encryption and no proof of who is who.")
]
Names = Annotated[str, typer.Option(help="Comma-separated.")]


def keys_command(
    folder: Annotated[Path, typer.Argument(help="Folder for the keys.")],
    hosts: Annotated[
        list[str], typer.Option("--host", help="A name or address of the server; repeatable.")
    ] = [],  # noqa: B006 (typer's way)
    nodes: Names = "",
) -> None:
    """Make the keys of a deployment, or of more nodes."""
    names = parts(nodes)
    if not hosts and not (folder / "server/server.pem").exists():
        raise UserError("--host: name the server as the nodes will, such as --host joint.example")
    make_keys(folder, hosts, names)
    console.print(f"server: copy {folder / 'server'} and each node's node.pub", soft_wrap=True)
    for name in names:
        console.print(f"node {name}: copy {folder / 'nodes' / name}", soft_wrap=True)


def server_command(
    address: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:8000",
    state: Annotated[Path, typer.Option(help="Folder of the server's database.")] = Path("server"),
    keys: Keys = None,
    insecure: Insecure = False,
) -> None:
    """Run the server: Flower's SuperLink, which knows the nodes of --keys."""
    sys.exit(run_server(address, state, keys, insecure))


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
) -> None:
    """Run a node: Flower's SuperNode, with its clients' data."""
    ids, own = client_ids(clients), own_data(data, parts(tasks))
    sys.exit(run_node(lambda: node_command(name, server, state, ids, own, keys, insecure)))


def deploy_command(
    scenario: Annotated[
        str | None, typer.Argument(help="A registered scenario, or a TOML file.")
    ] = None,
    server: Annotated[str, typer.Option(help="HOST:PORT of the server.")] = "127.0.0.1:8000",
    resume: Annotated[Path | None, typer.Option(help="Continue this run instead.")] = None,
    keys: Keys = None,
    insecure: Insecure = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    settings: Settings = [],  # noqa: B006 (typer's way)
) -> None:
    """Start a run on the nodes of a server on this machine, and follow it."""
    if (scenario is None) == (resume is None):
        raise UserError("give a scenario, or --resume RUN")
    parent = Path("runs") if resume is None else resume.parent
    connection = connect(server, parent / ".flower", keys, insecure)
    if not wait_for(*parse(server), seconds=30.0):
        raise UserError(f"nobody answers on {server}: start fedjoint server there")
    check_trust(server, keys)
    if keys:
        register(connection, keys)
    if resume is None:
        assert scenario is not None
        run, number = start(scenario_config(scenario, settings), connection)
    elif settings:
        raise UserError("--set belongs to a new run: a resumed one keeps its settings")
    else:
        run, number = restart(resume, connection)
    console.print(f"run directory: {run.path}", soft_wrap=True)
    if detach:
        return
    config = run.config()
    with Live(config.rounds, label(config)) as live:
        attend(run, number, connection, live)
    result = RunResult(run.path, config, run.records(), run.backbone().backbone)
    show_run(result, console)
    _show_participation(run)


def status_command(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Show how a run is doing: rounds, metrics, nodes, clients."""
    found = RunDir.open(run)
    config, records = found.config(), found.records()
    done = records[-1]["round"] if records else 0
    console.print(f"{run}: {found.info['status']}, round {done} of {config.rounds}")
    if records:
        console.print(metrics_table("metrics", RunResult(found.path, config, records, {})))
    rows = []
    for node in found.nodes():
        when = node.get("last_seen")
        seen = datetime.datetime.fromtimestamp(when).strftime("%d %b %H:%M:%S") if when else "-"
        tasks = ", ".join(node.get("tasks", []))
        rows.append(
            [node["name"] or node["node"], node["state"], tasks, seen, str(node.get("clients", 0))]
        )
    if rows:
        columns = ["node", "state", "tasks", "last seen", "clients"]
        console.print(table("nodes", columns, rows, left=3))
    _show_participation(found)


def _show_participation(run: RunDir) -> None:
    records = run.records()
    rounds = Counter(client for r in records for client in r["clients"]["ids"] or ())
    if rounds and len(rounds) <= 100:
        listed = ", ".join(f"{client}: {count}" for client, count in sorted(rounds.items()))
        console.print(f"rounds trained, of {len(records)}, by client: {listed}", soft_wrap=True)
