"""What several models are worth as one: of clients, of strategies, of rounds, and distilled.

    python -m simulations.ensembles --seeds 5

prints the table of docs/evidence.md, of the scenario digits: an ensemble against its best member by
validation, on the test examples of all clients with the task.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.experiments.intervals import interval
from fedjoint.experiments.splits import overlap
from fedjoint.exports.together import ensemble
from fedjoint.problem import build_problem
from fedjoint.runs.result import RunResult
from fedjoint.simulation import simulate

from .. import digits

TASKS = ("digit", "parity", "loop")

#: Strategies of which each leaves one model.
STRATEGIES = ("fedavg", "fedavgm", "fednova")

#: One model's metrics, and the ensemble's, by task.
Pair = tuple[Mapping[str, float], Mapping[str, float]]


def settings(strategy: str, seed: int, output: str, **more: Any) -> Config:
    """Return the scenario digits under a strategy."""
    tree = digits.config()
    return check(
        {
            **tree,
            "seed": seed,
            "strategy": {"name": strategy},
            "engine": {"name": "inline"},  # too small for workers
            "diagnostics": {"every": 0},
            "output": {"dir": output},
            **more,
        }
    )


def combined(paths: Sequence[Path]) -> Pair:
    """Return what the best member by validation reaches, and the ensemble."""
    found = {task: ensemble(paths, task) for task in TASKS}
    members = {task: each.best.test for task, each in found.items()}
    return members, {task: each.whole.test for task, each in found.items()}


def last(result: RunResult) -> Mapping[str, float]:
    """Return the metrics of the last round."""
    return {task: result.metrics["test"][task] or 0.0 for task in TASKS}


def measure(seed: int, output: str) -> dict[str, Pair]:
    """Return, for each way to combine, one model's metrics and those of several."""
    runs = {name: simulate(settings(name, seed, output)) for name in (*STRATEGIES, "swa")}
    public: dict[str, Any] = {
        "model": {**digits.config().get("model", {}), "heads": "shared"},
        "data": {**digits.config()["data"], "public_share": 0.25},
    }
    mean, distilled = (
        simulate(settings(name, seed, output, **public)) for name in ("fedavg", "feddf")
    )
    return {
        "clients' models, of one run": combined([runs["fedavg"].path]),
        f"models of {', '.join(STRATEGIES)}": combined([runs[name].path for name in STRATEGIES]),
        "backbones of the last rounds (`swa`)": (last(runs["fedavg"]), last(runs["swa"])),
        "distilled into one (`feddf`)": (last(mean), last(distilled)),
    }


def table(found: Sequence[Mapping[str, Pair]], common: float) -> Iterator[str]:
    """Yield the lines of a table: one model, several as one, and the difference, by task.

    Args:
        found: of each seed.
        common: how much the seeds' splits overlap.
    """
    yield "| combined | task | one model | combined | difference |"
    yield "| --- | --- | --- | --- | --- |"
    for way in found[0]:
        for task in TASKS:
            one, several = ([each[way][at][task] for each in found] for at in (0, 1))
            gains = [b - a for a, b in zip(one, several, strict=True)]
            values = (interval(v, common) for v in (one, several))
            first, second = (f"{value:.3f}" for value in values)
            yield f"| {way} | {task} | {first} | {second} | {interval(gains, common):+.3f} |"


def main() -> None:
    """Print the table of a command line."""
    parser = argparse.ArgumentParser(prog="python -m simulations.ensembles")
    parser.add_argument("--seeds", type=int, default=5, help="how many; an interval needs two")
    parser.add_argument("--output", default="runs", help="parent of the run directories")
    asked = parser.parse_args()
    first = settings("fedavg", 0, asked.output)
    found = [measure(first.seed + seed, asked.output) for seed in range(asked.seeds)]
    print("\n".join(table(found, overlap(first, build_problem(first)))))


if __name__ == "__main__":
    main()
