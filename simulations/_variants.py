"""Variants of a scenario beside one another, tuned alike: what tables in docs/ are made of."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.experiments.arms import Arm, Way
from fedjoint.experiments.intervals import interval
from fedjoint.experiments.paired import Paired
from fedjoint.experiments.search import read_search
from fedjoint.experiments.splits import overlap
from fedjoint.experiments.tune import Tuner, trained
from fedjoint.experiments.ways import ALONE, as_it_is
from fedjoint.problem import build_problem

Tree = Mapping[str, Any]

CLIENTS = "each client"


@dataclass(frozen=True)
class Variants:
    """Ways of training one scenario.

    Attributes:
        scenario: its settings.
        arms: name of an arm -> tables of settings that make it so; gains are over the first.
    """

    scenario: Tree
    arms: Mapping[str, Tree]

    def config(self, arm: str, more: Tree) -> Config:
        """Return the settings of an arm, and further ones that hold for all."""
        tree = {**self.scenario, **more}
        for table, values in self.arms[arm].items():
            tree[table] = {**tree.get(table, {}), **values}
        return check(tree)

    def measure(self, seeds: int, trials: int, more: Tree) -> tuple[dict[str, Arm], float]:
        """Return every client alone and every arm, and by how much the seeds' splits overlap.

        Args:
            seeds: how many.
            trials: learning rates that are tried for each arm; one: the scenario's own.
            more: settings of all arms.
        """
        first = self.config(self._first, more)
        problem = build_problem(first)
        search = read_search(first, trials, ()) if trials > 1 else None
        tuner = Tuner(search, problem, first.seed + seeds, _quietly)
        ways = {CLIENTS: (ALONE, first)}
        ways |= {name: (Way(name, as_it_is), self.config(name, more)) for name in self.arms}
        tuner.check(list(ways.values()))
        found = {
            name: trained(way, config, seeds, tuner, _quietly)
            for name, (way, config) in ways.items()
        }
        return found, overlap(first, problem)

    def table(self, arms: Mapping[str, Arm], common: float, title: str) -> Iterator[str]:
        """Yield the lines of a table: test metrics, gains over the first arm, and bytes.

        Args:
            arms: by name.
            common: how much the seeds' splits overlap.
            title: of the first column.
        """
        first = arms[self._first]
        names = " | ".join(task.name for task in first.tasks)
        yield f"| {title} | {names} | gain on each | kB |"
        yield "| --- |" + " --- |" * (len(first.tasks) + 2)
        for name, arm in arms.items():
            pair = Paired(first, arm, common)
            values = [f"{interval(arm.best(t.name), common):.3f}" for t in arm.tasks]
            gains = [f"{pair.interval(pair.gain(t)):+.3f}" for t in arm.tasks]
            sent = sum(arm.megabytes) / len(arm.megabytes) * 1e3
            gained = ", ".join(gains) if arm is not first else ""
            yield f"| {name} | {' | '.join(values)} | {gained} | {sent:,.0f} |"

    @property
    def _first(self) -> str:
        return next(iter(self.arms))


def _quietly(_name: str, _seed: int) -> None:
    pass


def main(program: str, variants: Variants, title: str) -> None:
    """Print the table of a command line."""
    parser = argparse.ArgumentParser(prog=f"python -m simulations.{program}")
    parser.add_argument("--seeds", type=int, default=5, help="how many; an interval needs two")
    parser.add_argument("--tune", type=int, default=1, help="learning rates tried for each arm")
    parser.add_argument("--output", default="runs", help="parent of the run directories")
    parser.add_argument("--rounds", type=int, default=variants.scenario["rounds"])
    asked = parser.parse_args()
    more = {
        "rounds": asked.rounds,
        "output": {"dir": asked.output},
        "engine": {"name": "inline"},  # too small for workers
        "diagnostics": {"every": 0, "within_every": 0},
    }
    found = variants.measure(asked.seeds, asked.tune, more)
    print("\n".join(variants.table(*found, title)))
