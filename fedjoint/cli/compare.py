"""``fedjoint compare``, ``fedjoint bench-strategies`` and ``fedjoint plot``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fedjoint import bench, compare, plots
from fedjoint.arms import Arm
from fedjoint.cli.common import Scenario, Settings, console, parts
from fedjoint.config.scenario import scenario_config
from fedjoint.config.schema import Config
from fedjoint.entries import split_entries
from fedjoint.errors import UserError
from fedjoint.runs.directory import RunDir, new_folder
from fedjoint.runs.files import write_csv
from fedjoint.simulation import RunResult

Seeds = Annotated[int, typer.Option(min=1, help="Seeds; an interval needs two or more.")]


def compare_command(
    scenario: Scenario,
    seeds: Seeds = 3,
    strategy: Annotated[str | None, typer.Option(help="Of the joint arm.")] = None,
    centralised_lr: Annotated[
        str | None,
        typer.Option(
            help="Learning rates of the centralised arm, comma-separated; the first seed's "
            "validation data chooses. Default: local.optimiser.lr, a quarter, a sixteenth of it."
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006 (typer's way)
) -> None:
    """Compare joint with independent and centralised training."""
    rates = _rates(centralised_lr)
    config, folder = _prepare(
        scenario_config(scenario, settings, strategy__name=strategy), "compare"
    )
    with console.status("starting") as status:
        found = compare.compare(
            config, seeds, rates, lambda n, s: status.update(escape(f"{n}, seed {s}"))
        )
    compare.show(found, console)
    write_csv(found.rows(), folder / "compare.csv")
    _draw(list(found.arms), found.joint, folder)


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
    settings: Settings = [],  # noqa: B006
) -> None:
    """Rank strategies on the same data, against training alone."""
    config, folder = _prepare(scenario_config(scenario, settings), "bench")
    with console.status("starting") as status:
        found = bench.bench_strategies(
            config,
            split_entries(strategies),
            seeds,
            lambda n, s: status.update(escape(f"{n}, seed {s}")),
        )
    bench.show(found, console)
    write_csv(found.rows(), folder / "ranking.csv")
    arms = [*found.arms.values(), found.reference]
    _draw(arms, arms[0], folder)


def plot_command(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Draw a run: objective, metrics, conflict."""
    opened = RunDir.open(run)
    records = opened.records()
    plots.objective(records, run / "objective.png")
    plots.task_cosines(records, run / "cosine.png")
    console.print(f"plots: {run}/*.png", soft_wrap=True)


def _rates(text: str | None) -> list[float]:
    try:
        rates = [float(rate) for rate in parts(text or "")]
    except ValueError:
        rates = [math.nan]
    if not all(0 < rate < math.inf for rate in rates):
        raise UserError(f"--centralised-lr {text}: give positive numbers, say 0.1,0.03")
    return rates


def _prepare(config: Config, what: str) -> tuple[Config, Path]:
    folder = new_folder(Path(config.output.dir), f"{what}-{config.name}")
    output = config.output.model_copy(update={"dir": str(folder / "runs")})
    return config.model_copy(update={"output": output}), folder


def _draw(arms: list[Arm], main: Arm, folder: Path) -> None:
    plots.convergence(arms, folder / "convergence.png")
    plots.conflict([arm for arm in arms if arm.conflicts()] or arms, folder / "conflict.png")
    last: RunResult = main.runs[-1]
    plots.task_cosines(last.records, folder / "cosine.png")
    console.print(f"table and plots: {folder}", soft_wrap=True)
