"""``fedjoint simulate`` and ``fedjoint resume``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fedjoint.cli.common import Scenario, Settings
from fedjoint.config.scenario import scenario_config
from fedjoint.config.schema import Config
from fedjoint.errors import UserError


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
    with _early(config):
        from fedjoint.cli.running import begin

        begin(config)


@contextmanager
def _early(config: Config) -> Iterator[None]:
    """Have Ray come up, where the engine is Ray, while PyTorch is imported inside."""
    if config.engine.name != "ray":
        yield
        return
    from fedjoint.engines.processes import started_early

    with started_early(config.engine):
        yield


def resume_command(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    settings: Annotated[
        list[str], typer.Option("--set", help="rounds=N: how many rounds in all, more than before.")
    ] = [],  # noqa: B006 (typer's way)
) -> None:
    """Continue a run from its newest checkpoint, or a run that is done with more rounds."""
    from fedjoint.cli.running import go_on

    go_on(run, more_rounds(settings))


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
