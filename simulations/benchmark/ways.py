"""The ways of training a model, each in turns with a plain loop, in one process.

Between one minute and the next a shared machine's speed may change by more than the ways differ; so
they take turns, a few clients each, and only the processor's time on this one thread counts.
"""

from __future__ import annotations

import time
from statistics import median

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.training.choice import choose_path, ways_of
from fedjoint.training.trainer import Trainer

from .contestants import sequential
from .workloads import Workload, workload

_CLIENTS, _TURNS = 8, 12


def compare(names: list[str], console: Console) -> None:
    """Measure the ways of training each workload, and say which one a run would take.

    Args:
        names: of the workloads.
        console: for the table.
    """
    torch.set_num_threads(1)
    table = Table(title="one thread, times a plain loop", box=SIMPLE)
    for column in ("work", "plain ms", "batched", "sequential", "traced", "channels_last"):
        table.add_column(column, justify="left" if column == "work" else "right", no_wrap=True)
    table.add_column("chosen", no_wrap=True)
    for name in names:
        with console.status(name):
            table.add_row(*_row(workload(name)))
    console.print(table)


def _row(made: Workload) -> list[str]:
    problem, config, cpu = made.problem(_CLIENTS), _config(made), torch.device("cpu")
    ways = ways_of(Trainer(problem, config, cpu), _CLIENTS * made.steps, _CLIENTS)
    plain, draws = made.model(), made.draws(_CLIENTS)
    x, y = made.x[draws], made.y[draws]
    start = {name: tensor.clone() for name, tensor in sequential.trained(plain).items()}

    def loop() -> float:
        began = time.thread_time()
        sequential.average(plain, start, x, y, made)
        return (time.thread_time() - began) / (_CLIENTS * made.steps)

    for turn in (loop, *(way.run for way in ways.values())):
        turn()
    took = [(loop(), {name: way.run() for name, way in ways.items()}) for _ in range(_TURNS)]
    ratios = {name: median(own / each[name] for own, each in took) for name in ways}
    chosen = choose_path(problem, problem.model(config), config, cpu)
    columns = ("batched", "sequential", "traced", "channels_last")
    return [
        made.name,
        f"{1e3 * median(own for own, _ in took):.2f}",
        *(f"{ratios[name]:.2f}" if name in ratios else "" for name in columns),
        chosen.path if chosen else next(iter(ways)),
    ]


def _config(made: Workload) -> Config:
    return check({"local": made.local, "engine": {"name": "inline"}})
