"""``fedjoint compare``, ``fedjoint bench-strategies`` and ``fedjoint plot``."""

from __future__ import annotations

from pathlib import Path
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
    write_comparison,
    write_tuning,
)
from fedjoint.config.scenario import scenario_config
from fedjoint.errors import UserError
from fedjoint.experiments import plots
from fedjoint.experiments.arms import Arm
from fedjoint.experiments.bench import bench_strategies
from fedjoint.experiments.compare import compare
from fedjoint.experiments.contestants import More
from fedjoint.experiments.entries import split_entries
from fedjoint.experiments.show_bench import show_bench
from fedjoint.experiments.show_compare import show_compare
from fedjoint.runs.directory import RunDir
from fedjoint.runs.files import drafted, write_csv
from fedjoint.runs.whole import check_whole


def compare_command(
    scenario: Scenario,
    seeds: Seeds = 3,
    strategy: Annotated[str | None, typer.Option(help="Of the joint and per-task arms.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also a centralised model per task.")
    ] = False,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Also per task and jointly with shared heads (FedAvg of whole models)."
        ),
    ] = False,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Also groups of tasks, each trained jointly by itself: digit+parity,loop+ink, or "
            "auto: validation data choose, which takes two runs a task and seed."
        ),
    ] = None,
    tune: Tune = 0,
    tune_over: TuneOver = [],  # noqa: B006 (typer's way)
    plain_intervals: Plain = False,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Compare training alone, per task, jointly, and in one place."""
    config = scenario_config(scenario, settings, strategy__name=strategy)
    search = tuned_by(config, tune, tune_over)
    with (
        prepared(config, "compare") as (config, folder),
        console.status("starting") as status,
    ):
        found = compare(
            config,
            seeds,
            more=More(full, whole, groups),
            corrected=not plain_intervals,
            search=search,
            on_run=shown_in(status),
        )
    show_compare(found, config.local.optimiser.lr, console)
    with drafted(folder) as draft:
        write_comparison(found, draft)
        _draw(list(found.arms.values()), found.arms["joint"], draft)
    console.print(f"table and plots: {folder}", soft_wrap=True)


def bench_command(
    scenario: Scenario,
    strategies: Annotated[
        str,
        typer.Option(
            help="Names, or file.py:Class, comma-separated, with options as in "
            "fedavg,pcgrad[level=client;length=mean]."
        ),
    ],
    seeds: Seeds = 3,
    per_task: Annotated[
        str | None,
        typer.Option(help="Strategy of the per-task arm, as above; default: the scenario's own."),
    ] = None,
    tune: Tune = 0,
    tune_over: TuneOver = [],  # noqa: B006
    plain_intervals: Plain = False,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Rank strategies on the same data, against training alone and per task."""
    config = scenario_config(scenario, settings)
    search = tuned_by(config, tune, tune_over)
    with (
        prepared(config, "bench") as (config, folder),
        console.status("starting") as status,
    ):
        found = bench_strategies(
            config,
            split_entries(strategies),
            seeds,
            per_task=per_task,
            corrected=not plain_intervals,
            search=search,
            on_run=shown_in(status),
        )
    show_bench(found, config.local.optimiser.lr, console)
    arms = list(found.everyone.values())
    with drafted(folder) as draft:
        write_csv(found.rows(), draft / "ranking.csv")
        write_tuning(found.tuning.values(), draft)
        _draw(arms, arms[0], draft)
    console.print(f"table and plots: {folder}", soft_wrap=True)


def plot_command(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Draw a run: objective, metrics, conflict."""
    opened = RunDir.open(run)
    # A run that goes on is writing its clients' state.
    records = check_whole(opened, states=opened.status != "running").records
    if not records:
        raise UserError(f"{run}: no round is done yet, so there is nothing to draw")
    if why := plots.of_run(records, run):
        console.print(why)
    console.print(f"plots: {run}/*.png", soft_wrap=True)


def _draw(arms: list[Arm], main: Arm, folder: Path) -> None:
    plots.convergence(arms, folder / "convergence.png")
    last = main.seeds[-1].runs[-1]
    left_out = [
        plots.conflict(arms, folder / "conflict.png"),
        plots.task_cosines(last.records, folder / "cosine.png"),
    ]
    for why in filter(None, left_out):
        console.print(why)
