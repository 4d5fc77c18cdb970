"""Rounds per second against the number of machines of a Ray cluster, simulated on this one.

    python -m simulations.scale --machines 1,2,4,8

Every machine is a Ray node of one CPU with a worker of its own. They share this machine's cores, so
the clients trained per second do not grow beyond these: what grows is what a round costs beside
training, and that is what the table is for. Clients are those of the benchmark's MLP.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from statistics import median
from typing import Annotated

import ray
import typer
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

import fedjoint
from fedjoint.config.load import check
from fedjoint.runs.record import RoundRecord

from ..benchmark.workloads import BATCH, RATE, STEPS, workload

_WARM_UP = 2

console = Console()


def main(
    machines: Annotated[str, typer.Option(help="Numbers of machines.")] = "1,2,4,8",
    clients: Annotated[int, typer.Option(min=1, help="Clients of a round.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after a warm-up.")] = 10,
) -> None:
    """Measure rounds on clusters of simulated machines."""
    table = Table(title=f"{clients:,} clients a round, medians of {rounds} rounds")
    for name in ("machines", "rounds/s", "round ms", "beside training ms"):
        table.add_column(name, justify="right")
    for count in map(int, machines.split(",")):
        with console.status(f"{count} machines"):
            table.add_row(str(count), *_measured(count, clients, rounds))
    console.print(table)


def _measured(machines: int, clients: int, rounds: int) -> list[str]:
    cluster = Cluster()
    try:
        for _ in range(machines):
            cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.wait_for_nodes()
        records, took = _run(cluster.address, machines, clients, rounds)
    finally:
        ray.shutdown()
        cluster.shutdown()
    beside = median(s - r.seconds.train for s, r in zip(took, records, strict=True))
    seconds = median(took)
    return [f"{1 / seconds:.1f}", f"{1e3 * seconds:.0f}", f"{1e3 * beside:.0f}"]


def _run(
    address: str, machines: int, clients: int, rounds: int
) -> tuple[list[RoundRecord], list[float]]:
    """Return the rounds that count, and the seconds that each took."""
    ended: list[float] = []
    records: list[RoundRecord] = []

    def note(record: RoundRecord) -> None:
        ended.append(time.perf_counter())
        records.append(record)

    with tempfile.TemporaryDirectory() as folder:
        config = check(
            {
                "rounds": _WARM_UP + rounds + 1,  # the last is evaluated
                "local": {"steps": STEPS, "batch_size": BATCH, "optimiser": {"lr": RATE}},
                "evaluate": {"every": 10**9},
                "diagnostics": {"every": 0},
                "engine": {"name": "ray", "address": address, "workers": machines},
                "output": {"dir": folder, "checkpoint_every": 10**9},
            }
        )
        fedjoint.simulate(config, workload("mlp").problem(clients), callbacks=[note])
    counted = slice(_WARM_UP, _WARM_UP + rounds)
    took = [later - earlier for earlier, later in itertools.pairwise(ended)]
    return records[counted], took[_WARM_UP - 1 : _WARM_UP - 1 + rounds]


if __name__ == "__main__":
    typer.run(main)
