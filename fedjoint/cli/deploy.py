"""``fedjoint deploy`` and ``status``."""

from __future__ import annotations

import datetime
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedjoint._util.net import listens, wait_for
from fedjoint._util.wording import plain
from fedjoint.cli.common import Settings, console, say
from fedjoint.cli.live import Live
from fedjoint.cli.machines import Insecure, Keys
from fedjoint.cli.simulate import label, more_rounds
from fedjoint.config.scenario import scenario_config
from fedjoint.deploy.address import parse
from fedjoint.deploy.registration import register
from fedjoint.deploy.run import attend, restart, start
from fedjoint.deploy.server import check_trust, connect, control
from fedjoint.errors import UserError
from fedjoint.experiments.report import metrics_table, show_run
from fedjoint.experiments.tables import table
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import check_whole
from fedjoint.simulation import RunResult

_QUIET = 60.0  # seconds without a sign of life, after which status says so


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
        with control(server, keys) as reached:
            register(reached, keys)
    if resume is None:
        assert scenario is not None
        run, number = start(scenario_config(scenario, settings), connection)
    else:
        run, number = restart(resume, connection, more_rounds(settings))
    say(f"run directory: {run.path}")
    if detach:
        return
    config = run.config()
    try:
        with Live(config.rounds, label(config)) as live:
            there = partial(listens, *parse(server))
            attend(run, number, connection, live.after_round, live.say, there)
    except KeyboardInterrupt:
        say(
            f"the run goes on, on the server: follow it with fedjoint status {run.path}; stop it "
            f"with FLWR_HOME={connection.home} flwr stop {number} {connection.name}, and go on "
            f"from its newest checkpoint with fedjoint deploy --resume {run.path}"
        )
        sys.exit(130)
    whole = check_whole(run, states=False)
    backbone = whole.newest.whole if whole.newest else {}
    result = RunResult(run.path, config, whole.records, backbone)
    show_run(result, console)
    _show_participation(run)


def status_command(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Show how a run is doing: rounds, metrics, nodes, clients."""
    found = RunDir.open(run)
    config, status = found.config(), found.status
    # A run that goes on is writing its clients' state.
    records = check_whole(found, states=status != "running").records
    done = records[-1].round if records else 0
    say(f"{run}: {status}, round {done} of {config.rounds}")
    news = found.last_news()
    if status == "running" and news is not None and time.time() - news > _QUIET:
        say(f"no news since {_clock(news)}: if its server was stopped or killed, resume the run")
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
        say(f"rounds trained, of {len(records)}, by client: {listed}")


def _clock(when: float | None) -> str:
    return datetime.datetime.fromtimestamp(when).strftime("%d %b %H:%M:%S") if when else "-"
