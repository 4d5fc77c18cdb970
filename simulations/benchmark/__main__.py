"""``python -m simulations.benchmark``: who trains how many clients per second."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from fedjoint.errors import UserError, choose
from fedjoint.runs.files import drafted, write_csv

from . import merge as merging
from . import population as populations
from . import ways as compared
from .cell import WARM_UP, Cell, run
from .contestants import CONTESTANTS
from .plot import draw
from .results import Results, rate, show
from .workloads import WORKLOADS

console = Console()


def main(
    workloads: Annotated[str, typer.Option(help=", ".join(WORKLOADS))] = "mlp",
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "100,1000,10000",
    contestants: Annotated[str, typer.Option(help=", ".join(CONTESTANTS))] = ",".join(CONTESTANTS),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after a warm-up.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Fresh processes, interleaved.")] = 3,
    seconds: Annotated[float, typer.Option(help="Time limit of each process.")] = 300.0,
    device: Annotated[str, typer.Option(help="cpu, or cuda for all on one GPU.")] = "cpu",
    threads: Annotated[
        int, typer.Option(min=0, help="Most threads, or processes on a GPU; 0: all cores.")
    ] = 0,
    out: Annotated[Path, typer.Option(help="Folder of table and plot.")] = Path("benchmarks"),
    merge: Annotated[bool, typer.Option("--merge", help="Only measure merging.")] = False,
    population: Annotated[
        bool, typer.Option("--population", help="Only measure what registered clients cost.")
    ] = False,
    ways: Annotated[
        bool, typer.Option("--ways", help="Only measure the ways of training each workload.")
    ] = False,
) -> None:
    """Measure ways to train clients side by side; every number is from this run."""
    if merge:
        merging.compare(1000, 1_000_000, repeats + 2, console)
        return
    if population:
        populations.compare([10_000, 100_000, 1_000_000], console)
        return
    if ways:
        compared.compare(_names(workloads, "workload", WORKLOADS), console)
        return
    cells = lineup(
        _names(workloads, "workload", WORKLOADS),
        _counts(clients),
        _names(contestants, "contestant", CONTESTANTS),
        threads or len(os.sched_getaffinity(0)),
        choose_device(device),
    )
    out.mkdir(parents=True, exist_ok=True)
    results = Results()
    for repeat in range(repeats):
        for cell in cells:
            known = results.outcomes.get(cell, [])
            if known and known[-1].problem:
                continue  # it would take as long again
            label = f"{cell.workload}, {cell.clients:,} clients, {cell.contestant}/{cell.threads}"
            with console.status(f"{repeat + 1}/{repeats}: {label}"):
                outcome = run(cell, rounds, seconds)
            results.add(cell, outcome)
            news = [f"{rate(cell, outcome):,.0f} clients/s"] if outcome.seconds else []
            news += [outcome.problem] if outcome.problem else []
            console.print(f"{repeat + 1}/{repeats}: {label}: {', '.join(news)}", markup=False)
    rows = results.rows()
    show(rows, console)
    console.print(
        f"medians of {repeats} processes with {rounds} rounds each, after {WARM_UP} to warm up"
    )
    with drafted(out) as draft:
        write_csv(rows, draft / "benchmark.csv")
        draw(rows, draft / "benchmark.png")
    console.print(f"table and plot: {out}", soft_wrap=True)


def lineup(
    workloads: list[str], clients: list[int], contestants: list[str], most: int, device: str
) -> list[Cell]:
    """Return the cells, on up to ``most`` threads; those to be compared next to one another."""
    threads = {"one": 1, "all": most}
    return [
        Cell(workload, count, contestant, number, device)
        for workload in workloads
        for count in clients
        for contestant in contestants
        for number in sorted({threads[name] for name in CONTESTANTS[contestant]})
    ]


def choose_device(name: str) -> str:
    """Return ``name``.

    Raises:
        UserError: there is no such device here.
    """
    known = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if name not in known:
        raise choose("device", name, known)
    return name


def _names(text: str, what: str, known: Collection[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise choose(what, name, known)
    return names


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UserError(f"--clients {text}: give whole numbers, such as 100,1000")
    return counts


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        sys.exit(2)
