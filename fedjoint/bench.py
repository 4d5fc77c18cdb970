"""Strategies side by side, on the same partitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from fedjoint.arms import Arm, OnRun, gains, independent, mean, run_arm
from fedjoint.config import Config
from fedjoint.engines.session import session
from fedjoint.errors import UserError
from fedjoint.report import table
from fedjoint.server import make_strategy
from fedjoint.statistics import Interval, columns, delta_m, mean_ranks

_WIDTH, _NAME = 79, 16  # columns of a table, and most of them for the name of a strategy


@dataclass(frozen=True)
class Bench:
    """Strategies and their reference.

    Attributes:
        arms: strategy -> its runs.
        reference: every client alone.
        failed: strategy -> why it could not be run.
    """

    arms: dict[str, Arm]
    reference: Arm
    failed: dict[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per strategy, the best mean rank first.

        A task's name is its mean test metric over seeds, with `` 95 %`` half the width of its
        interval and with `` gain`` by how much it is better than the reference.
        """
        tasks = self.reference.tasks
        everyone = {**self.arms, self.reference.name: self.reference}
        scores = {n: [v for t in tasks for v in arm.final(t.name)] for n, arm in everyone.items()}
        seeds = len(self.reference.runs)
        ups = [task.metric_fn.higher_is_better for task in tasks]
        ranks = mean_ranks(scores, [up for up in ups for _ in range(seeds)])
        rows = []
        for name in sorted(everyone, key=lambda n: ranks[n]):
            arm = everyone[name]
            relative = [
                delta_m(
                    [arm.final(t.name)[seed] for t in tasks],
                    [self.reference.final(t.name)[seed] for t in tasks],
                    ups,
                )
                for seed in range(seeds)
            ]
            row: dict[str, Any] = {"strategy": name, "mean rank": ranks[name]}
            row |= columns("test", arm.scores())
            row["Delta-m %"] = mean(relative)
            row["conflicting pairs"] = mean(share for _, share in arm.conflicts())
            row |= {"MB": mean(arm.megabytes), "seconds": mean(arm.seconds)}
            for task in tasks:
                row |= columns(task.name, arm.final(task.name))
                row[f"{task.name} gain"] = mean(gains(arm, self.reference, task))
            rows.append(row)
        return rows


def bench_strategies(
    config: Config,
    strategies: Sequence[str],
    seeds: int,
    on_run: OnRun = lambda name, seed: None,
) -> Bench:
    """Run every strategy with ``seeds`` seeds; data and partition depend on the seed alone.

    A strategy that cannot be run is reported, and the others go on.

    Raises:
        UserError: a name is unknown.
    """
    configs = {}
    for name in strategies:
        options = config.strategy.options if name == config.strategy.name else {}
        strategy = config.strategy.model_copy(update={"name": name, "options": options})
        configs[name] = config.model_copy(update={"strategy": strategy})
        make_strategy(configs[name])
    arms, failed = {}, {}
    with session(config.engine):
        reference = run_arm("independent", independent(config), seeds, on_run=on_run)
        for name, made in configs.items():
            try:
                label = name.replace("/", "_").replace(":", "_")
                arms[name] = run_arm(label, made, seeds, on_run=on_run)
            except UserError as error:
                failed[name] = str(error)
    return Bench(arms, reference, failed)


def show(bench: Bench, console: Console) -> None:
    """Print the ranking, and the metrics of every task."""
    rows = bench.rows()
    headers = ["strategy", "rank", "mean\ntest metric", "Delta-m %", "conflicts", "MB", "seconds"]
    cells = [
        [
            row["strategy"],
            f"{row['mean rank']:.2f}",
            f"{Interval(row['test'], row['test 95 %']):.3f}",
            f"{Interval(row['Delta-m %'], math.nan):+.2f}",
            "" if math.isnan(row["conflicting pairs"]) else f"{row['conflicting pairs']:.0%}",
            f"{row['MB']:.1f}",
            f"{row['seconds']:.1f}",
        ]
        for row in rows
    ]
    console.print(table("strategies by mean rank over tasks and seeds", headers, cells))
    console.print("Delta-m: average relative gain over independent training; positive is better")
    console.print("conflicts: share of pairs of clients whose updates point apart")
    console.print()
    names = [row["strategy"] for row in rows]
    each = {
        f"{task.name}\n{task.metric_fn.name}": [_cell(row, task.name) for row in rows]
        for task in bench.reference.tasks
    }
    widest = max(len(text) for h, c in each.items() for text in [*h.split("\n"), *c])
    side = max(1, (_WIDTH - min(_NAME, max(map(len, names)))) // (widest + 2))
    for first in range(0, len(each), side):
        shown = list(each)[first : first + side]
        cells = [list(line) for line in zip(names, *(each[h] for h in shown), strict=True)]
        title = "test metrics, mean and 95 % interval over seeds"
        console.print(table(title, ["strategy", *shown], cells))
    console.print("*: worse than independent training")
    for name, reason in bench.failed.items():
        console.print(f"{name} failed: {reason}", markup=False)


def _cell(row: dict[str, Any], task: str) -> str:
    worse = "*" if row[f"{task} gain"] < 0 else " "
    return f"{Interval(row[task], row[f'{task} 95 %']):.2f}{worse}".replace(" ± ", "±")
