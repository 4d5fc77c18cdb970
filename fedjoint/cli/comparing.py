"""What commands that compare ways of training share: options, folders, tables of tuning."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.status import Status

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.experiments.arms import OnRun
from fedjoint.experiments.search import Search, read_search
from fedjoint.experiments.tune import Tuning
from fedjoint.runs.directory import new_folder
from fedjoint.runs.files import write_csv

Seeds = Annotated[int, typer.Option(min=1, help="Seeds; an interval needs two or more.")]
Tune = Annotated[
    int,
    typer.Option(
        help="Trials for each arm, the scenario's own settings among them; the validation data "
        "of a further seed choose. Default: nothing is tuned."
    ),
]
TuneOver = Annotated[
    list[str],
    typer.Option(
        help="Beside the learning rate, tune this: key.path=low..high or key.path=a,b,c. The "
        "learning rate is local.optimiser.lr, by default a sixteenth to four times the scenario's."
    ),
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain-intervals",
        help="Student's intervals, which take seeds as independent; default: corrected for what "
        "re-splits of one data set share (Nadeau and Bengio).",
    ),
]


def tuned_by(config: Config, trials: int, over: list[str]) -> Search | None:
    """Return the search of ``--tune`` and ``--tune-over``; None: nothing is tuned.

    Raises:
        UserError: one is wrong.
    """
    if trials:
        return read_search(config, trials, over)
    if over:
        raise UserError("--tune-over belongs to --tune N: say how many trials each arm has")
    return None


def shown_in(status: Status) -> OnRun:
    """Return what shows each run as it starts."""
    return lambda name, seed: status.update(escape(f"{name}, seed {seed}"))


def prepare(config: Config, what: str) -> tuple[Config, Path]:
    """Make the folder of a comparison; return the settings whose runs lie in it, and the folder.

    Raises:
        UserError: it cannot be made.
    """
    folder = new_folder(Path(config.output.dir), f"{what}-{config.name}")
    output = config.output.model_copy(update={"dir": str(folder / "runs")})
    return config.model_copy(update={"output": output}), folder


def write_tuning(found: Iterable[Tuning], folder: Path) -> None:
    """Write what was tried, where anything was."""
    if rows := [row for tuning in found for row in tuning.rows()]:
        write_csv(rows, folder / "tuning.csv")
