"""``fedjoint affinity``."""

from __future__ import annotations

from typing import Annotated

import typer

from fedjoint.cli.common import Scenario, Settings, console
from fedjoint.cli.comparing import (
    Plain,
    Seeds,
    Tune,
    TuneOver,
    prepared,
    shown_in,
    tuned_by,
    write_tuning,
)
from fedjoint.config.scenario import scenario_config
from fedjoint.experiments import plots
from fedjoint.experiments.affinity import affinity
from fedjoint.experiments.show_affinity import show_affinity
from fedjoint.runs.files import drafted, write_csv


def affinity_command(
    scenario: Scenario,
    seeds: Seeds = 3,
    tune: Tune = 0,
    tune_over: TuneOver = [],  # noqa: B006 (typer's way)
    plain_intervals: Plain = False,
    output: Annotated[
        str | None, typer.Option(help="Parent of the folder that is written; default: output.dir.")
    ] = None,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Tell which tasks help which: train jointly without each, and compare the updates."""
    config = scenario_config(scenario, settings, output__dir=output)
    search = tuned_by(config, tune, tune_over)
    with (
        prepared(config, "affinity") as (config, folder),
        console.status("starting") as status,
    ):
        found = affinity(
            config,
            seeds,
            corrected=not plain_intervals,
            search=search,
            on_run=shown_in(status),
        )
    show_affinity(found, config.local.optimiser.lr, console)
    with drafted(folder) as draft:
        write_csv(list(found.rows()), draft / "affinity.csv")
        write_tuning(found.tuning.values(), draft)
        plots.affinity(found, draft / "affinity.png")
    console.print(f"table and plot: {folder}", soft_wrap=True)
