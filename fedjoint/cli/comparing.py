"""What commands that compare ways of training share: options, folders, tables of tuning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.status import Status

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.experiments.arms import OnRun
from fedjoint.experiments.compare import Comparison
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


@contextmanager
def prepared(config: Config, what: str) -> Iterator[tuple[Config, Path]]:
    """Yield the settings of a comparison, whose runs lie in its folder, and that folder.

    Where an error ends it before anything is in the folder, there is none.

    Raises:
        UserError: it cannot be made.
    """
    parent = Path(config.output.dir)
    new = [path for path in (parent, *parent.parents) if not path.exists()]
    folder = new_folder(parent, f"{what}-{config.name}")
    output = config.output.model_copy(update={"dir": str(folder / "runs")})
    try:
        yield config.model_copy(update={"output": output}), folder
    except BaseException:
        with suppress(OSError):  # something is in it
            for path in (folder, *new):
                path.rmdir()
        raise


def write_comparison(found: Comparison, folder: Path) -> None:
    """Write the tables of a comparison."""
    write_csv(found.rows, folder / "compare.csv")
    write_csv(found.gains(), folder / "gains.csv")
    write_tuning(found.tuning.values(), folder)


def write_tuning(found: Iterable[Tuning], folder: Path) -> None:
    """Write what was tried, where anything was."""
    if rows := [row for tuning in found for row in tuning.rows()]:
        write_csv(rows, folder / "tuning.csv")
