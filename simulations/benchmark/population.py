"""What clients cost that are registered and not sampled: seconds, memory and disk of a run."""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import tempfile
import time
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from fedjoint import simulate

from .. import digits

SAMPLED, ROUNDS = 1000, 6


def measure(clients: int) -> dict[str, float]:
    """Run digits with ``clients`` registered, of whom :data:`SAMPLED` train in each round.

    Returns:
        ``start``: seconds until the first round ends; ``round``: median seconds of the others;
        ``memory``: peak MB of this process; ``disk``: MB of the clients' private state.
    """
    fraction, began, ends = SAMPLED / clients, time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        tree: dict[str, Any] = digits.config() | {
            "rounds": ROUNDS,
            # With those for validation and test, 64 examples of each client.
            "data": {"clients": clients, "partition": "iid", "examples_per_client": 46},
            "strategy": {"fraction": fraction},
            "evaluate": {"fraction": fraction},
            "engine": {"name": "inline", "cache_clients": SAMPLED},
            "output": {"dir": folder, "checkpoint_every": 2},
        }
        run = simulate(tree, callbacks=[lambda record: ends.append(time.perf_counter())])
        disk = sum(file.stat().st_size for file in run.path.glob("state.sqlite*"))
    rounds = [after - before for before, after in itertools.pairwise(ends)]
    # Kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "start": ends[0] - began,
        "round": median(rounds),
        "memory": peak / 1e6,
        "disk": disk / 1e6,
    }


def compare(populations: list[int], console: Console) -> None:
    """Print what each population costs, each measured in a process of its own."""
    table = Table(title=f"digits, {SAMPLED:,} clients sampled per round")
    for name in ("registered", "first round s", "round s", "peak MB", "private state MB"):
        table.add_column(name, justify="right")
    for clients in populations:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(measure, (clients,))
        table.add_row(
            f"{clients:,}",
            f"{found['start']:.1f}",
            f"{found['round']:.2f}",
            f"{found['memory']:,.0f}",
            f"{found['disk']:.1f}",
        )
    console.print(table)
