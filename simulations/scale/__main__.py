"""Rounds per second against the number of machines of a Ray cluster, simulated on this one.

    python -m simulations.scale --machines 1,2,4,8
    python -m simulations.scale --hidden 4096 --clients 64 --blocks 64

Every machine is a Ray node of one CPU with a worker of its own. They share this machine's cores, so
the clients trained per second do not grow beyond these: what grows is what a round costs beside
training, and that is what the table is for, and how many bytes of updates reach the driver. Rows of
a megabyte and more are summed on the machines first, unless ``--all-rows`` says otherwise. Clients
are those of the benchmark's MLP, or of a wider one.
"""

from __future__ import annotations

import itertools
import logging
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Annotated

import ray
import typer
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

import fedjoint
from fedjoint.config.load import check
from fedjoint.engines import combining
from fedjoint.model.backbones.mlp import mlp
from fedjoint.model.inputs import Inputs
from fedjoint.runs.record import RoundRecord

from ..benchmark.workloads import workload

_WARM_UP = 2

console = Console()


def main(
    machines: Annotated[str, typer.Option(help="Numbers of machines.")] = "1,2,4,8",
    clients: Annotated[int, typer.Option(min=3, help="Clients of a round.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after a warm-up.")] = 10,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the MLP's first layer.")] = 128,
    blocks: Annotated[int, typer.Option(min=0, help="Blocks of clients; 0: as usual.")] = 0,
    all_rows: Annotated[bool, typer.Option(help="Send all rows to the driver.")] = False,
) -> None:
    """Measure rounds on clusters of simulated machines."""
    load = Load(hidden, clients, blocks, rounds)
    if all_rows:
        combining.LEAST = sys.maxsize
    table = Table(title=f"{clients:,} clients a round, medians of {rounds} rounds")
    for name in ("machines", "rounds/s", "round ms", "beside training ms", "rows", "MB"):
        table.add_column(name, justify="right")
    for count in map(int, machines.split(",")):
        with console.status(f"{count} machines"):
            table.add_row(str(count), *_measured(count, load))
    console.print(table)


@dataclass(frozen=True)
class Load:
    """What the machines do.

    Attributes:
        hidden: width of the first layer of what clients train.
        clients: of a round.
        blocks: of clients; 0: as usual.
        rounds: after a warm-up.
    """

    hidden: int
    clients: int
    blocks: int
    rounds: int


class Gathered(logging.Handler):
    """Keeps how many rows of updates reached the driver in each round, and of how many bytes."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[tuple[int, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take what a record says of them, if it does."""
        details = getattr(record, "details", {})
        if details.get("event") == "gathered":
            self.found.append((details["rows"], details["bytes"]))


def _measured(machines: int, load: Load) -> list[str]:
    cluster, gathered = Cluster(), Gathered()
    logger = logging.getLogger("fedjoint.server.pooling")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(gathered)
    try:
        for _ in range(machines):
            cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.wait_for_nodes()
        records, took = _run(cluster.address, machines, load)
    finally:
        logger.removeHandler(gathered)
        ray.shutdown()
        cluster.shutdown()
    beside = median(s - r.seconds.train for s, r in zip(took, records, strict=True))
    seconds = median(took)
    rows, size = (median(column) for column in zip(*gathered.found, strict=True))
    times = [f"{1 / seconds:.1f}", f"{1e3 * seconds:.0f}", f"{1e3 * beside:.0f}"]
    return [*times, f"{rows:.0f}", f"{size / 1e6:.1f}"]


def _run(address: str, machines: int, load: Load) -> tuple[list[RoundRecord], list[float]]:
    """Return the rounds that count, and the seconds that each took."""
    made = workload("mlp")
    ended: list[float] = []
    records: list[RoundRecord] = []

    def note(record: RoundRecord) -> None:
        ended.append(time.perf_counter())
        records.append(record)

    with tempfile.TemporaryDirectory() as folder:
        config = check(
            {
                "rounds": _WARM_UP + load.rounds + 1,  # the last is evaluated
                "local": made.local,
                "evaluate": {"every": 10**9},
                "diagnostics": {"every": 0, "clients": 2},
                "engine": {
                    "name": "ray",
                    "address": address,
                    "workers": machines,
                    "blocks": load.blocks,
                },
                "output": {"dir": folder, "checkpoint_every": 10**9},
            }
        )
        backbone = partial(mlp, Inputs(shape=(64,), dtype="float32"), [load.hidden, 64])
        problem = replace(made, backbone=backbone).problem(load.clients)
        fedjoint.simulate(config, problem, callbacks=[note])
    counted = slice(_WARM_UP, _WARM_UP + load.rounds)
    took = [later - earlier for earlier, later in itertools.pairwise(ended)]
    return records[counted], took[_WARM_UP - 1 : _WARM_UP - 1 + load.rounds]


if __name__ == "__main__":
    typer.run(main)
