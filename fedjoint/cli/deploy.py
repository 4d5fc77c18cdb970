"""``fedjoint keys``, ``server``, ``client``, ``deploy`` and ``status``."""

from __future__ import annotations

import datetime
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from fedjoint._util.wording import plain
from fedjoint.cli.common import Live, Settings, client_ids, console, parts
from fedjoint.cli.simulate import label
from fedjoint.config.scenario import scenario_config
from fedjoint.deploy.address import parse, wait_for
from fedjoint.deploy.data import own_data
from fedjoint.deploy.keys import make_keys
from fedjoint.deploy.node import node_command, run_node
from fedjoint.deploy.run import attend, restart, start
from fedjoint.deploy.server import check_trust, connect, register, run_server
from fedjoint.errors import UserError
from fedjoint.experiments.report import metrics_table, show_run
from fedjoint.experiments.tables import table
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import RunResult

Keys = Annotated[Path | None, typer.Option(help="Folder of keys; see fedjoint keys.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="No encryption and no proof of who is who.")
]
_QUIET = 60.0  # seconds without a sign of life, after which status says so

Names = Annotated[str, typer.Option(help="Comma-separated.")]


def keys_command(
    folder: Annotated[Path, typer.Argument(help="Folder for the keys.")],
    hosts: Annotated[
        list[str], typer.Option("--host", help="Names and addresses of the server; repeatable.")
    ] = [],  # noqa: B006 (typer's way)
    nodes: Names = "",
) -> None:
    """Make the keys of a deployment, or of more nodes."""
    names, hosts = parts(nodes), [name for host in hosts for name in parts(host)]
    if not hosts and not (folder / "server/server.pem").exists():
        raise UserError("--host: name the server as the nodes will, such as --host joint.example")
    make_keys(folder, hosts, names)
    _say(f"server: copy {folder / 'server'} and each node's node.pub")
    for name in names:
        _say(f"node {name}: copy {folder / 'nodes' / name}")


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
    parent = Path("runs") if resume is None else RunDir.open(resume).path.parent
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
    _say(f"run directory: {run.path}")
    if detach:
        return
    config = run.config()
    try:
        with Live(config.rounds, label(config)) as live:
            attend(run, number, connection, live.after_round, live.say)
    except KeyboardInterrupt:
        _say(
            f"the run goes on, on the server: follow it with fedjoint status {run.path}; stop it "
            f"with FLWR_HOME={connection.home} flwr stop {number} {connection.name}, and go on "
            f"from its newest checkpoint with fedjoint deploy --resume {run.path}"
        )
        sys.exit(130)
    result = RunResult(run.path, config, run.records(), run.backbone().backbone)
    show_run(result, console)
    _show_participation(run)


def status_command(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Show how a run is doing: rounds, metrics, nodes, clients."""
    found = RunDir.open(run)
    config, records, status = found.config(), found.records(), found.info["status"]
    done = records[-1].round if records else 0
    _say(f"{run}: {status}, round {done} of {config.rounds}")
    news = found.last_news()
    if status == "running" and news is not None and time.time() - news > _QUIET:
        _say(f"no news since {_clock(news)}: if its server was stopped or killed, resume the run")
    if records:
        console.print(metrics_table("metrics", RunResult(found.path, config, records, {})))
    rows = []
    for node in found.nodes():
        tasks = ", ".join(node.get("tasks", []))
        seen = _clock(node.get("last_seen"))
        clients = str(node.get("clients", 0))
        rows.append(
            [plain(cell) for cell in (node["name"], node["node"], node["state"], tasks)]
            + [seen, clients]
        )
    if rows:
        columns = ["node", "number", "state", "tasks", "last seen", "clients"]
        console.print(table("nodes", columns, rows, left=4))
    _show_participation(found)


def _show_participation(run: RunDir) -> None:
    records = run.records()
    rounds = Counter(client for r in records for client in r.clients.ids or ())
    if rounds and len(rounds) <= 100:
        listed = ", ".join(f"{client}: {count}" for client, count in sorted(rounds.items()))
        _say(f"rounds trained, of {len(records)}, by client: {listed}")


def _clock(when: float | None) -> str:
    return datetime.datetime.fromtimestamp(when).strftime("%d %b %H:%M:%S") if when else "-"


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
