"""This project's engine: inline on one thread, Ray on several."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from typing import Any

import torch

from fedjoint import simulate
from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.runs.record import RoundRecord

from ..workloads import Workload
from . import OnRound

_NEVER = 10**9


def measure(
    workload: Workload,
    clients: int,
    rounds: int,
    threads: int,
    on_round: OnRound,
    compiled: bool = False,
) -> None:
    """Simulate; the time of a round is that from the end of one to the end of the next."""
    ended = time.perf_counter()

    def record(values: RoundRecord) -> None:
        nonlocal ended
        now = time.perf_counter()
        if values.round <= rounds:
            on_round(now - ended, asdict(values.seconds))
        ended = now

    with tempfile.TemporaryDirectory() as folder:
        config = settings(workload, rounds, threads, folder, compiled)
        simulate(config, workload.problem(clients), callbacks=[record])


def settings(workload: Workload, rounds: int, threads: int, folder: str, compiled: bool) -> Config:
    """Return the configuration: FedAvg over all clients, without evaluation and checkpoints."""
    return check(
        {
            "name": "benchmark",
            # One more than is measured, for the last round is always evaluated.
            "rounds": rounds + 1,
            "local": {**workload.local, "compile": compiled},
            "evaluate": {"every": _NEVER},
            "diagnostics": {"every": 0},
            "engine": {"name": "inline"} if threads == 1 else _ray(threads),
            "output": {"dir": folder, "checkpoint_every": _NEVER},
        }
    )


def _ray(workers: int) -> dict[str, Any]:
    sharing = {"workers_per_gpu": workers} if torch.cuda.is_available() else {}
    return {"name": "ray", "workers": workers, **sharing}
