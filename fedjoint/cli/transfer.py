"""``fedjoint transfer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedjoint.cli.common import Settings, console, number, parts
from fedjoint.errors import UserError
from fedjoint.experiments import plots
from fedjoint.experiments.tables import table
from fedjoint.experiments.transfer import Transfer, transfer
from fedjoint.experiments.unseen import Unseen, generalise
from fedjoint.runs.files import drafted, write_csv


def transfer_command(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    task: Annotated[str, typer.Option(help="A task that the run has not trained.")] = "",
    unseen: Annotated[
        bool, typer.Option("--unseen", help="The clients that data.unseen_clients kept out.")
    ] = False,
    sizes: Annotated[
        str, typer.Option(help="Sizes of training sets, such as 10,100; default: 10 to all.")
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Training sets of each size.")] = 5,
    steps: Annotated[
        str, typer.Option(help="Steps; with --unseen several, such as 1,10,100.")
    ] = "",
    backbone: Annotated[
        int | None,
        typer.Option(help="Which one, from 0, of a strategy that keeps several backbones."),
    ] = None,
    settings: Settings = [],  # noqa: B006 (typer's way)
) -> None:
    """Measure what a run's backbone is worth to a new task or to new clients."""
    if bool(task) == unseen:
        raise UserError("name a new task by --task, or take the clients kept out by --unseen")
    counts = _numbers("--steps", steps)
    if unseen:
        if sizes or settings:
            raise UserError("--sizes and --set belong to --task")
        found = generalise(run, counts or (1, 10, 100), backbone=backbone)
        _show_unseen(found)
        _write(run / "transfer" / "unseen", found)
        return
    if len(counts) > 1:
        raise UserError(f"--steps {steps}: with --task, give one number")
    learnt = transfer(
        run,
        task,
        sizes=_numbers("--sizes", sizes) or None,
        repeats=repeats,
        steps=counts[0] if counts else 200,
        settings=settings,
        backbone=backbone,
    )
    _show_transfer(learnt)
    _write(run / "transfer" / task, learnt)


def _numbers(option: str, text: str) -> list[int]:
    try:
        found = [int(part) for part in parts(text)]
    except ValueError:
        found = [0]
    if any(not 1 <= number <= 1_000_000 for number in found):
        raise UserError(f"{option} {text}: write whole numbers from 1, as in 10,100")
    return found


def _show_transfer(found: Transfer) -> None:
    sizes = list(dict.fromkeys(point.size for point in found.points))
    cells: dict[str, list[str]] = {}
    for point in found.points:
        cells.setdefault(point.way.name, []).append(f"{point.interval:.3f}")
    title = f"test {found.task.metric_fn.name} of {found.task.name}, by training examples"
    headers = ["way", *(f"{size:,}" for size in sizes)]
    console.print(table(title, headers, [[way, *row] for way, row in cells.items()]))
    console.print("95 % intervals over training sets of one size; one test set")


def _show_unseen(found: Unseen) -> None:
    keys = ("train", "test", "unseen", "out-of-sample gap", "participation gap")
    rows = [
        [row["task"], row["way"], str(row["steps"]), *(number(row[key]) for key in keys)]
        for row in sorted(found.rows(), key=lambda row: str(row["task"]))
    ]
    headers = ["task", "way", "steps", "train", "test", "unseen", "out-of-\nsample gap"]
    headers.append("partici-\npation gap")
    title = f"clients that trained, and {found.clients} that were kept out"
    console.print(table(title, headers, rows, left=2, grouped=True))


def _write(folder: Path, found: Transfer | Unseen) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with drafted(folder) as draft:
        write_csv(found.rows(), draft / "transfer.csv")
        if isinstance(found, Transfer):
            plots.learning_curves(found, draft / "transfer.png")
    console.print(f"tables and plots: {folder}", soft_wrap=True, markup=False)
