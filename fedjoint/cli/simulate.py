"""``fedjoint simulate`` and ``fedjoint resume``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedjoint.cli.common import Scenario, Settings, console, say
from fedjoint.cli.live import Live
from fedjoint.config.scenario import scenario_config
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.experiments.report import show_run
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import resume, simulate


def simulate_command(
    scenario: Scenario,
    engine: Annotated[str | None, typer.Option(help="ray, inline or flower.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Registered name or file.py:Class.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    clients: Annotated[int | None, typer.Option(help="Clients.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join.")] = None,
    settings: Settings = [],  # noqa: B006 (typer's way)
) -> None:
    """Train jointly, and leave metrics, checkpoints and the backbone in a run directory."""
    config = scenario_config(
        scenario,
        settings,
        engine__name=engine,
        engine__address=address,
        strategy__name=strategy,
        data__clients=clients,
        rounds=rounds,
        seed=seed,
    )
    with Live(config.rounds, label(config)) as live:
        result = simulate(config, callbacks=[live])
    show_run(result, console)


def resume_command(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    settings: Annotated[
        list[str], typer.Option("--set", help="rounds=N: how many rounds in all, more than before.")
    ] = [],  # noqa: B006 (typer's way)
) -> None:
    """Continue a run from its newest checkpoint, or a run that is done with more rounds."""
    opened, rounds = RunDir.open(run), more_rounds(settings)
    if opened.status == "done" and rounds is None:
        say(f"{run}: the run is done; nothing is left to do (--set rounds=N gives more)")
        show_run(resume(run), console)
        return
    config = opened.config()
    with Live(rounds or config.rounds, label(config)) as live:
        result = resume(run, rounds=rounds, callbacks=[live])
    show_run(result, console)


def more_rounds(settings: Sequence[str]) -> int | None:
    """Return how many rounds a resumed run is to have; None: as configured.

    Raises:
        UserError: something else is to be set, or it is no number.
    """
    rounds = None
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if key != "rounds":
            raise UserError(f"--set {key}: a resumed run keeps its settings; only rounds may grow")
        if not value.isdecimal():
            raise UserError(f"--set {setting}: give a whole number of rounds")
        rounds = int(value)
    return rounds


def label(config: Config) -> str:
    """Return what a run is, in two words, or three where its local method is chosen, too."""
    names = [name for name in (config.strategy.name, config.local.method) if name]
    return f"{config.name} ({', '.join(Path(name).name for name in names)})"
