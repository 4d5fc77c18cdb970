"""``fedjoint deploy``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedjoint._util.interrupt import exit_status
from fedjoint._util.net import listens, wait_for
from fedjoint.cli.common import Settings, console, say
from fedjoint.cli.live import Live
from fedjoint.cli.machines import Insecure, Keys
from fedjoint.cli.running import label
from fedjoint.cli.status import show_participation
from fedjoint.config.scenario import scenario_config
from fedjoint.deploy.address import parse
from fedjoint.deploy.registration import register
from fedjoint.deploy.run import attend, restart, start
from fedjoint.deploy.server import check_trust, connect, control
from fedjoint.errors import UserError
from fedjoint.experiments.report import show_run
from fedjoint.runs.directory import RunDir
from fedjoint.runs.result import RunResult
from fedjoint.runs.whole import check_whole

#: settings that a resumed run may change -> how a text becomes a value
_OPERATIONAL = {
    "rounds": int,
    "engine.min_nodes": int,
    "strategy.min_clients": int,
    "strategy.timeout": float,
    "output.checkpoint_every": int,
}


def operational(settings: Sequence[str]) -> dict[str, int | float]:
    """Return the settings that a resumed run is to change.

    Raises:
        UserError: one would change its numbers, or is no number.
    """
    changed: dict[str, int | float] = {}
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in _OPERATIONAL:
            raise UserError(
                f"--set {key}: a resumed run keeps what its numbers depend on; only "
                f"{', '.join(_OPERATIONAL)} may change"
            )
        try:
            changed[key] = _OPERATIONAL[key](value)
        except ValueError:
            raise UserError(f"--set {setting}: give a number") from None
    return changed


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
    wanted = None if scenario is None else scenario_config(scenario, settings)
    parent = Path("runs") if resume is None else RunDir.open(resume).path.parent
    connection = connect(server, parent / ".flower", keys, insecure)
    if not wait_for(*parse(server), seconds=30.0):
        raise UserError(f"nobody answers on {server}: start fedjoint server there")
    check_trust(server, keys)
    if keys:
        with control(server, keys) as reached:
            register(reached, keys)
    if wanted is not None:
        run, number = start(wanted, connection)
    else:
        assert resume is not None, "one of the two is given"
        run, number = restart(resume, connection, operational(settings))
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
            f"the run goes on, on the server: follow it with fedjoint status {run.path} --watch; "
            f"stop it with fedjoint stop {run.path}, and go on with fedjoint deploy --resume "
            f"{run.path}"
        )
        sys.exit(exit_status())
    whole = check_whole(run, states=False)
    backbone = whole.newest.whole if whole.newest else {}
    result = RunResult(run.path, config, whole.records, backbone)
    show_run(result, console)
    show_participation(run)
