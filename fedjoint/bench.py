"""Strategies side by side, on the same partitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from fedjoint.arms import Arm, OnRun, independent, mean, run_arm
from fedjoint.config import Config
from fedjoint.errors import UserError
from fedjoint.server import make_strategy
from fedjoint.statistics import delta_m, interval, mean_ranks


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
        """Return one row per strategy, the best mean rank first."""
        tasks = self.reference.tasks
        everyone = {**self.arms, "independent": self.reference}
        scores = {n: [v for t in tasks for v in arm.final(t.name)] for n, arm in everyone.items()}
        seeds = len(self.reference.runs)
        higher = [t.metric_fn.higher_is_better for t in tasks for _ in range(seeds)]
        ranks = mean_ranks(scores, higher)
        rows = []
        for name in sorted(everyone, key=lambda n: ranks[n]):
            arm = everyone[name]
            gains = [
                delta_m(
                    [arm.final(t.name)[seed] for t in tasks],
                    [self.reference.final(t.name)[seed] for t in tasks],
                    [t.metric_fn.higher_is_better for t in tasks],
                )
                for seed in range(seeds)
            ]
            worse = [t.name for t in tasks if _gain(arm, self.reference, t) < 0]
            conflict = mean([share for _, share in arm.conflicts()])
            rows.append(
                {
                    "strategy": name,
                    "mean rank": f"{ranks[name]:.2f}",
                    "mean test metric": str(interval(arm.overall())),
                    "Delta-m %": f"{interval(gains).mean:+.2f}",
                    **{t.name: str(interval(arm.final(t.name))) for t in tasks},
                    "negative transfer": ", ".join(worse) or "none",
                    "conflicting pairs": "" if math.isnan(conflict) else f"{conflict:.0%}",
                    "MB": f"{mean(arm.megabytes):.1f}",
                    "seconds": f"{mean(arm.seconds):.1f}",
                }
            )
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
    reference = run_arm("independent", independent(config), seeds, on_run=on_run)
    arms, failed = {}, {}
    for name, made in configs.items():
        try:
            label = name.replace("/", "_").replace(":", "_")
            arms[name] = run_arm(label, made, seeds, on_run=on_run)
        except UserError as error:
            failed[name] = str(error)
    return Bench(arms, reference, failed)


def show(bench: Bench, console: Console) -> None:
    """Print the ranking."""
    rows = bench.rows()
    table = Table(title="strategies by mean rank over tasks and seeds")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    console.print("Delta-m: average relative gain over independent training; positive is better")
    for name, reason in bench.failed.items():
        console.print(f"{name} failed: {reason}")


def _gain(arm: Arm, reference: Arm, task: Any) -> float:
    sign = 1 if task.metric_fn.higher_is_better else -1
    pairs = zip(arm.final(task.name), reference.final(task.name), strict=True)
    return mean([sign * (a - b) for a, b in pairs])
