"""What groups of clients with different models gain from one another, in the scenario unlike.

    python -m simulations.couplings --seeds 5

prints the table of docs/groups.md. Whatever couples the groups, each merges its own backbone by
FedAvg, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.experiments.arms import Arm, Way, run_arm
from fedjoint.experiments.intervals import interval
from fedjoint.experiments.paired import Paired
from fedjoint.experiments.splits import overlap
from fedjoint.experiments.ways import ALONE, as_it_is
from fedjoint.problem import build_problem

from .. import unlike

APART = "each group"

#: what couples the groups -> tables of settings that make it so
COUPLINGS: Mapping[str, Mapping[str, Any]] = {
    APART: {},
    "common trunk": {"model": {"common": ["backbone.trunk.*"]}},
    "prototypes": {"strategy": {"name": "fedproto", "options": {"merge": True}}},
    "logits": {"strategy": {"name": "fedmd", "options": {"merge": True}}},
}


def settings(coupling: Mapping[str, Any], more: Mapping[str, Any]) -> Config:
    """Return the scenario with a coupling, and further settings."""
    tree = {**unlike.config(), **more}
    for table, values in coupling.items():
        tree[table] = {**tree[table], **values}
    return check(tree)


def measure(seeds: int, more: Mapping[str, Any]) -> tuple[dict[str, Arm], float]:
    """Return every client alone and every coupling, and by how much the seeds' splits overlap."""
    apart = settings({}, more)
    arms = {"each client": run_arm(ALONE, apart, seeds)}
    for name, coupling in COUPLINGS.items():
        arms[name] = run_arm(Way(name, as_it_is), settings(coupling, more), seeds)
    return arms, overlap(apart, build_problem(apart))


def table(arms: Mapping[str, Arm], common: float) -> Iterator[str]:
    """Yield the lines of a table: test metrics, and the gain over each group by itself."""
    yield (
        "| alone or coupled by | "
        + " | ".join(t.name for t in arms[APART].tasks)
        + " | gain on each | kB |"
    )
    yield "| --- |" + " --- |" * (len(arms[APART].tasks) + 2)
    for name, arm in arms.items():
        pair = Paired(arms[APART], arm, common)
        values = [f"{interval(arm.best(t.name), common):.3f}" for t in arm.tasks]
        gains = [f"{pair.interval(pair.gain(t)):+.3f}" for t in arm.tasks] if name != APART else []
        sent = sum(arm.megabytes) / len(arm.megabytes) * 1e3
        yield f"| {name} | {' | '.join(values)} | {', '.join(gains)} | {sent:,.0f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m simulations.couplings")
    parser.add_argument("--seeds", type=int, default=5, help="how many; an interval needs two")
    parser.add_argument("--output", default="runs", help="parent of the run directories")
    parser.add_argument("--rounds", type=int, default=unlike.config()["rounds"])
    asked = parser.parse_args()
    given = {
        "rounds": asked.rounds,
        "output": {"dir": asked.output},
        "engine": {"name": "inline"},  # too small for workers
        "evaluate": {"train": False},
        "diagnostics": {"every": 0, "within_every": 0},
    }
    print("\n".join(table(*measure(asked.seeds, given))))
