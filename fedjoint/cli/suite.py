"""``fedjoint suite``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedjoint.cli.common import Settings, console, parts
from fedjoint.cli.comparing import write_comparison
from fedjoint.config.schema import Config
from fedjoint.config.suite import suite_config
from fedjoint.experiments import plots
from fedjoint.experiments.compare import Comparison
from fedjoint.experiments.show_compare import show_compare
from fedjoint.experiments.suite import entries, run_suite
from fedjoint.experiments.suite_table import show_suite
from fedjoint.runs.files import drafted, write_csv

_WIDTH = 100  # of the report of a comparison


def suite_command(
    name: Annotated[str, typer.Argument(help="A registered suite, or a TOML file.")],
    output: Annotated[
        str, typer.Option(help="Parent of the suite's folder; what is done there is not repeated.")
    ] = "runs",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of every comparison; default: the suite's.")
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(min=0, help="Trials for each arm, 0: untuned; default: the suite's."),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Comparisons, comma-separated.")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Try it: one seed, untuned, a few rounds.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Arms that are trained at a time; 0: as many as cores."),
    ] = 0,
    settings: Settings = [],  # noqa: B006 (typer's way)
) -> None:
    """Run a suite of comparisons, in parallel; an interrupted one goes on where it stopped."""
    suite = suite_config(name)
    folder = Path(output) / f"suite-{suite.name}{'-smoke' if smoke else ''}"
    chosen = entries(
        suite,
        folder,
        settings,
        only=parts(only or ""),
        seeds=seeds,
        tune=tune,
        smoke=smoke,
    )
    with console.status("starting") as status:
        rows = run_suite(
            chosen,
            _report,
            workers=workers,
            on_news=lambda text: status.update(escape(text)),
        )
    show_suite(rows, console)
    with drafted(folder) as draft:
        write_csv(rows, draft / "suite.csv")
        plots.gains(rows, draft / "gains.png")
    console.print(f"table, plot and comparisons: {folder}", soft_wrap=True)


def _report(found: Comparison, config: Config, folder: Path) -> None:
    """Write what ``fedjoint compare`` prints and writes into the folder of the comparison."""
    text = io.StringIO()
    show_compare(found, config.local.optimiser.lr, Console(file=text, width=_WIDTH))
    with drafted(folder) as draft:
        (draft / "report.txt").write_text(text.getvalue())
        write_comparison(found, draft)
        plots.convergence(list(found.arms.values()), draft / "convergence.png")
