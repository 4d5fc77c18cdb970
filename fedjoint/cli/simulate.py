"""``fedjoint simulate`` and ``fedjoint resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedjoint.cli.common import Scenario, Settings, console, say
from fedjoint.cli.live import Live
from fedjoint.config.scenario import scenario_config
from fedjoint.config.schema import Config
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


def resume_command(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Continue a run from its newest checkpoint."""
    opened = RunDir.open(run)
    config = opened.config()
    if opened.status == "done":
        say(f"{run}: the run is done; nothing is left to do")
    with Live(config.rounds, label(config)) as live:
        result = resume(run, callbacks=[live])
    show_run(result, console)


def label(config: Config) -> str:
    """Return what a run is, in two words, or three where its local method is chosen, too."""
    names = [name for name in (config.strategy.name, config.local.method) if name]
    return f"{config.name} ({', '.join(Path(name).name for name in names)})"
