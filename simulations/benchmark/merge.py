"""How long FedAvg takes to merge, beside reading the same memory once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fedjoint.model.layout import Layout
from fedjoint.server.updates import Updates
from fedjoint.strategies.fedavg import FedAvg


def stacked(clients: int, parameters: int) -> Updates:
    """Return random updates, weighted unequally."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(clients, generator=generator)
    return Updates(
        matrix=torch.empty(clients, parameters).uniform_(-1, 1, generator=generator),
        weights=weights / weights.sum(),
        examples=torch.full((clients,), 64),
        clients=torch.arange(clients),
        tasks=torch.ones(clients, 1, dtype=torch.bool),
        task_names=("label",),
        steps=torch.full((clients,), 4),
        backbone=torch.zeros(parameters),
        layout=Layout({"all": (parameters,)}),
        round=1,
    )


def compare(clients: int, parameters: int, repeats: int, console: Console) -> None:
    """Print the time of a merge in ratio to the faster of two ways to read every number once.

    Both touch every number once, use no other memory of that size, and are as fast as PyTorch
    and its BLAS make them: the sum of all, and the product with a vector of ones, row by row.
    """
    updates, strategy = stacked(clients, parameters), FedAvg()
    ones = torch.ones(parameters)
    ways: dict[str, Callable[[], Tensor]] = {
        "merge": lambda: strategy.merge(updates),
        "sum of all": updates.matrix.sum,
        "rows times ones": lambda: torch.mv(updates.matrix, ones),
    }
    size = updates.matrix.nbytes
    table = Table(
        title=f"merging {clients:,} updates of {parameters:,} float32 ({size / 1e9:g} GB)"
    )
    for name in ("threads", *(f"{way} ms" for way in ways), "merge GB/s", "merge / reading"):
        table.add_column(name, justify="right")
    threads = torch.get_num_threads()
    for count in sorted({1, len(os.sched_getaffinity(0))}):
        torch.set_num_threads(count)
        took: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats + 1):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                took[way].append(time.perf_counter() - began)
        seconds = {way: median(times[1:]) for way, times in took.items()}
        reading = min(seconds["sum of all"], seconds["rows times ones"])
        table.add_row(
            str(count),
            *(f"{1e3 * value:.1f}" for value in seconds.values()),
            f"{size / seconds['merge'] / 1e9:.1f}",
            f"{seconds['merge'] / reading:.2f}",
        )
    torch.set_num_threads(threads)
    console.print(table)
