"""One measurement, in a process of its own: nothing carries over, and its memory can be told."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from fedjoint._util import processes

from . import workloads
from .contestants import find

#: One CPU thread unless the contestant says otherwise, no telemetry.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
#: What hides GPUs from whoever is to train on the CPU.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
#: First rounds, which are not counted: caches fill, and programs are traced.
WARM_UP = 2

_LOOK = 0.25  # seconds between two looks at a running cell


@dataclass(frozen=True)
class Cell:
    """What is measured.

    Attributes:
        workload: name of the workload.
        clients: how many are trained in every round.
        contestant: who trains them.
        threads: on how many threads, or in how many processes on a GPU.
        device: cpu or cuda.
    """

    workload: str
    clients: int
    contestant: str
    threads: int
    device: str = "cpu"


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        seconds: of each round after the warm-up.
        parts: part of a round -> its seconds (median), where they are known.
        megabytes: peak memory of the process and all it started; NaN where it cannot be told.
        problem: why there are fewer rounds than asked for, or none; empty if there are not.
    """

    seconds: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    megabytes: float = math.nan
    problem: str = ""


def run(cell: Cell, rounds: int, limit: float) -> Outcome:
    """Measure ``cell`` in a fresh process.

    Args:
        cell: what to measure.
        rounds: rounds after the warm-up.
        limit: seconds after which it is stopped; the rounds done by then count.
    """
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "report", Path(folder) / "log"
        task = json.dumps([asdict(cell), WARM_UP + rounds, str(report)])
        peaks: list[float] = []
        problem = ""
        report.touch()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, task],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | ENVIRONMENT | (_NO_GPU if cell.device == "cpu" else {}),
            )
            end = time.monotonic() + limit
            try:
                while process.poll() is None:
                    if time.monotonic() > end:
                        problem = f"over the limit of {limit:g} s"
                        break
                    peaks.append(processes.megabytes(processes.tree(process.pid)))
                    time.sleep(_LOOK)
            finally:
                if process.poll() is None:
                    processes.kill(process.pid)
                    process.wait()
        if process.returncode and not problem:
            lines = log.read_text(errors="replace").strip().splitlines()
            problem = lines[-1] if lines else f"exit status {process.returncode}"
        lines = report.read_text().splitlines()
        return _outcome([json.loads(line) for line in lines], peaks, problem)


def _outcome(lines: list[Mapping[str, float]], peaks: list[float], problem: str) -> Outcome:
    measured = lines[WARM_UP:]
    names = list(measured[0]) if measured else []
    parts = {name: median(line[name] for line in measured) for name in names}
    parts.pop("seconds", None)
    peak = max((p for p in peaks if not math.isnan(p)), default=math.nan)
    return Outcome([line["seconds"] for line in measured], parts, peak, problem)


def _measure(task: str) -> None:
    cell, rounds, report = json.loads(task)
    try:
        measure = find(cell["contestant"])
    except ModuleNotFoundError as error:
        sys.exit(f"skipped: {error.name} is not installed")
    with open(report, "a", buffering=1) as file:  # noqa: PTH123 (line by line, as rounds end)
        measure(
            workloads.workload(cell["workload"]),
            cell["clients"],
            rounds,
            cell["threads"],
            lambda seconds, parts: print(json.dumps({**parts, "seconds": seconds}), file=file),
        )


if __name__ == "__main__":
    _measure(sys.argv[1])
