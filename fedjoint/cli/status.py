"""``fedjoint status`` and ``stop``."""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from fedjoint._util.wording import plain
from fedjoint.cli.common import console, finite, say
from fedjoint.errors import UserError
from fedjoint.experiments.report import metrics_table
from fedjoint.experiments.tables import table
from fedjoint.runs.directory import RunDir
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.result import RunResult
from fedjoint.runs.whole import check_whole

_QUIET = 60.0  # seconds without a sign of life, after which a run is taken for dead
_START = 600.0  # seconds that a run has to begin
_EVERY = 2.0  # seconds between two looks at a run

Run = Annotated[Path, typer.Argument(help="A run directory.")]


def status_command(
    run: Run,
    watch: Annotated[bool, typer.Option("--watch", help="Show changes, until it ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show how a run is doing: rounds, metrics, nodes, clients.

    Exit status 1: it failed, or died.
    """
    found, shown = RunDir.open(run), ""
    while True:
        seen = _look(found)
        if (key := json.dumps([seen["status"], seen["round"], seen["nodes"]])) != shown:
            shown = key
            if as_json:
                print(json.dumps(seen), flush=True)
            else:
                _show(found, seen)
        if not watch or seen["status"] not in ("created", "running") or not seen["alive"]:
            sys.exit(0 if seen["alive"] and seen["status"] != "failed" else 1)
        time.sleep(_EVERY)


def stop_command(
    run: Run,
    seconds: Annotated[float, typer.Option(help="How long to wait for its end.")] = 600.0,
) -> None:
    """Stop a run on a server, in order: its newest round is the last, and a resume goes on."""
    found = RunDir.open(run)
    if found.status not in ("created", "running"):
        say(f"{run}: {found.status} already")
        return
    end = time.monotonic() + finite("--seconds", seconds)
    found.ask_to_stop()
    while found.status in ("created", "running"):
        if not _alive(found):
            found.mark("failed")
            say(f"{run}: its server is gone; go on with fedjoint deploy --resume {run}")
            return
        if time.monotonic() > end:
            raise UserError(f"{run}: it has not stopped within {seconds:g} s, and will later on")
        time.sleep(_EVERY / 4)
    say(f"{run}: {found.status}; go on with fedjoint deploy --resume {run}")


def show_participation(run: RunDir) -> None:
    """Say in how many rounds each client trained, where there are not too many."""
    records = run.records()
    if rounds := _rounds(records):
        listed = ", ".join(f"{client}: {count}" for client, count in sorted(rounds.items()))
        say(f"rounds trained, of {len(records)}, by client: {listed}")


def _look(run: RunDir) -> dict[str, Any]:
    """Return how a run is doing; of a run that goes on, without its clients' state."""
    status, config, news = run.status, run.config(), run.last_news()
    records = check_whole(run, states=status not in ("created", "running")).records
    last = records[-1] if records else None
    return {
        "run": str(run.path),
        "status": status,
        "alive": _alive(run),
        "last_news": news,
        "round": last.round if last else 0,
        "rounds": config.rounds,
        "objective": last.objective if last else None,
        "test": next((r.test for r in reversed(records) if r.evaluation), {}),
        "failed": len(last.clients.failed) if last else 0,
        "seconds": last.seconds.round if last else None,
        "nodes": run.nodes(),
    }


def _alive(run: RunDir) -> bool:
    """Return whether there is no reason to take a run for dead."""
    if run.status == "created":
        return (
            time.time() - datetime.datetime.fromisoformat(run.info["created"]).timestamp() <= _START
        )
    news = run.last_news()
    return run.status != "running" or news is None or time.time() - news <= _QUIET


def _show(run: RunDir, seen: dict[str, Any]) -> None:
    say(f"{run.path}: {seen['status']}, round {seen['round']} of {seen['rounds']}")
    if not seen["alive"] and seen["status"] == "created":
        say("it has not begun: start its server, and resume the run")
    elif not seen["alive"]:
        since = _clock(seen["last_news"])
        say(f"no news since {since}: if its server was stopped or killed, resume the run")
    if seen["round"]:
        result = RunResult(run.path, run.config(), run.records(), {})
        console.print(metrics_table("metrics", result))
    rows = []
    for node in seen["nodes"]:
        tasks = ", ".join(node.get("tasks", []))
        rows.append(
            [plain(cell) for cell in (node["name"], node["node"], node["state"], tasks)]
            + [_clock(node.get("last_seen")), str(node.get("clients", 0))]
        )
    if rows:
        columns = ["node", "number", "state", "tasks", "last seen", "clients"]
        console.print(table("nodes", columns, rows, left=4))
    show_participation(run)


def _rounds(records: list[RoundRecord]) -> Counter[int]:
    rounds = Counter(client for r in records for client in r.clients.ids or ())
    return rounds if len(rounds) <= 100 else Counter()


def _clock(when: float | None) -> str:
    return datetime.datetime.fromtimestamp(when).strftime("%d %b %H:%M:%S") if when else "-"
