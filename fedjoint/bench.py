"""Strategies side by side, on the same partitions."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from fedjoint.arms import Arm, OnRun, gains, independent, mean, run_arm
from fedjoint.config.schema import Config
from fedjoint.engines.session import session
from fedjoint.entries import entry_configs
from fedjoint.errors import UserError
from fedjoint.report import table
from fedjoint.server.strategy import make_strategy
from fedjoint.statistics import (
    Interval,
    columns,
    delta_m,
    from_columns,
    interval,
    mean_ranks,
)

log = logging.getLogger("fedjoint.bench")

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
        """Return one row per strategy, the best mean rank first, undefined Delta-m last.

        ``test`` is the mean over tasks, ``worst task`` the least, each the mean over the seeds
        that have it (``... seeds``) with half the width of its interval (``... 95 %``).
        ``Delta-m %`` compares seed by seed, and is NaN where any seed lacks a metric. A task's
        name is its test metric, with `` gain`` by how much it is better than the reference.
        ``kept rounds`` counts, over all seeds, those without a merge.
        """
        tasks = self.reference.tasks
        everyone = {**self.arms, self.reference.name: self.reference}
        scores = {n: [v for t in tasks for v in arm.final(t.name)] for n, arm in everyone.items()}
        seeds = len(self.reference.runs)
        ups = [task.metric_fn.higher_is_better for task in tasks]
        ranks = mean_ranks(scores, [up for up in ups for _ in range(seeds)])
        rows = []
        for name, arm in everyone.items():
            row: dict[str, Any] = {"strategy": name, "mean rank": ranks[name], "seeds": seeds}
            row |= columns("test", interval(arm.scores()))
            row |= columns("worst task", interval(arm.worst()))
            row |= columns("Delta-m %", self.delta_m(arm))
            row["conflicting pairs"] = mean(share for _, share in arm.conflicts())
            row |= {"MB": mean(arm.megabytes), "seconds a run": mean(arm.seconds)}
            row["kept rounds"] = sum(arm.kept)
            for task in tasks:
                row |= columns(task.name, interval(arm.final(task.name)))
                row[f"{task.name} gain"] = mean(gains(arm, self.reference, task))
            rows.append(row)
        return sorted(rows, key=lambda row: (math.isnan(row["Delta-m %"]), row["mean rank"]))

    def delta_m(self, arm: Arm) -> Interval:
        """Return Delta-m against the reference's run of the same seed, the mean over seeds."""
        tasks = self.reference.tasks
        ups = [task.metric_fn.higher_is_better for task in tasks]
        own = [arm.final(task.name) for task in tasks]
        other = [self.reference.final(task.name) for task in tasks]
        pairs = zip(zip(*own, strict=True), zip(*other, strict=True), strict=True)
        found = interval([delta_m(scores, reference, ups) for scores, reference in pairs])
        if found.known < found.of:  # a mean over the seeds that went well would flatter
            return found._replace(mean=math.nan, half=math.nan)
        return found


def bench_strategies(
    config: Config,
    strategies: Sequence[str],
    seeds: int,
    on_run: OnRun = lambda name, seed: None,
) -> Bench:
    """Run every strategy with ``seeds`` seeds; data and partition depend on the seed alone.

    A strategy that cannot be run, or of which no merge succeeds, is reported, and the others go
    on.

    Args:
        config: everything but the strategy.
        strategies: names, with options where they are wanted, see
            :func:`fedjoint.entries.entry_configs`.
        seeds: how many.
        on_run: hears of each run as it starts.

    Raises:
        UserError: a name or an option is wrong.
    """
    configs = entry_configs(config, strategies)
    for made in configs.values():
        make_strategy(made)
    arms, failed = {}, {}
    with session(config.engine):
        reference = run_arm("independent", independent(config), seeds, on_run=on_run)
        for name, made in configs.items():
            try:
                arm = run_arm(name, made, seeds, on_run=on_run)
            except UserError as error:
                failed[name] = str(error)
            except Exception as error:  # a plug-in may raise anything
                log.exception("%s failed", name)
                failed[name] = f"{type(error).__name__}: {error}"
            else:
                why = _never_merged(arm)
                if why is None:
                    arms[name] = arm
                else:
                    failed[name] = f"no round has merged; the last one: {why}"
    return Bench(arms, reference, failed)


def _never_merged(arm: Arm) -> str | None:
    """Return why the backbone was kept in every round of a run, None if there is no such run."""
    for run, kept in zip(arm.runs, arm.kept, strict=True):
        if kept == len(run.records):
            return str(run.records[-1]["kept"])
    return None


def show(bench: Bench, console: Console) -> None:
    """Print the ranking, what it costs, and the metrics of every task."""
    rows = bench.rows()
    names = [row["strategy"] for row in rows]
    headers = ["strategy", "rank", "mean\ntest metric", "worst\ntask", "Delta-m %"]
    cells = [
        [
            row["strategy"],
            f"{row['mean rank']:.2f}",
            f"{from_columns('test', row):.3f}",
            f"{from_columns('worst task', row):.3f}",
            f"{from_columns('Delta-m %', row):+.2f}",
        ]
        for row in rows
    ]
    console.print(table("strategies by mean rank over tasks and seeds", headers, cells))
    console.print("Delta-m: average relative gain over independent training; positive is better")
    console.print()
    cells = [
        [
            row["strategy"],
            "" if math.isnan(row["conflicting pairs"]) else f"{row['conflicting pairs']:.0%}",
            f"{row['MB']:.1f}",
            f"{row['seconds a run']:.1f}",
            str(row["kept rounds"]),
        ]
        for row in rows
    ]
    headers = ["strategy", "conflicts", "MB sent\nto train", "seconds", "rounds\nkept"]
    console.print(table("a run, mean over seeds", headers, cells))
    console.print("conflicts: share of pairs of clients whose updates point apart")
    console.print("rounds kept: without a merge, over all seeds; why is in the runs' metrics")
    console.print()
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
    return f"{from_columns(task, row):.2f}{worse}".replace(" ± ", "±")
