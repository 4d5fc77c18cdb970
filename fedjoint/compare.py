"""Joint against independent against centralised training."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedjoint.arms import Arm, OnRun, centralised, independent, pooled_problem, run_arm
from fedjoint.config import Config
from fedjoint.statistics import interval
from fedjoint.tasks import Task


@dataclass(frozen=True)
class Comparison:
    """Three ways of training on the same data, over the same seeds.

    Attributes:
        joint: clients share the backbone.
        independent: every client alone, with the same local budget.
        centralised: everyone's data in one place, the upper reference.
    """

    joint: Arm
    independent: Arm
    centralised: Arm

    @property
    def arms(self) -> tuple[Arm, Arm, Arm]:
        """The three."""
        return self.joint, self.independent, self.centralised

    def gain(self, task: Task) -> list[float]:
        """Return by how much joint is better than independent on the test data, by seed."""
        pairs = zip(self.joint.final(task.name), self.independent.final(task.name), strict=True)
        sign = 1 if task.metric_fn.higher_is_better else -1
        return [sign * (joint - alone) for joint, alone in pairs]

    def rounds_to_target(self, arm: Arm, task: Task) -> list[float]:
        """Return the first evaluated round at which ``arm`` is as good as independent ends.

        NaN where it never is.
        """
        up = task.metric_fn.higher_is_better
        found = []
        for seed, target in enumerate(self.independent.final(task.name)):
            reached = [
                round
                for round, value in arm.curve(seed, task.name)
                if (value >= target if up else value <= target)
            ]
            found.append(float(reached[0]) if reached else math.nan)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per arm and task, and one per arm overall."""
        rows = []
        for arm in self.arms:
            for task in arm.tasks:
                test, train = arm.final(task.name), arm.final(task.name, "train")
                sign = 1 if task.metric_fn.higher_is_better else -1
                gap = [sign * (a - b) for a, b in zip(train, test, strict=True)]
                rounds = self.rounds_to_target(arm, task)
                label = f"{task.name} ({task.metric_fn.name})"
                rows.append(_row(arm, label, test, gap) | {"rounds to target": _median(rounds)})
            gap = [a - b for a, b in zip(arm.overall("train"), arm.overall(), strict=True)]
            costs = {
                "MB": sum(arm.megabytes) / len(arm.runs),
                "seconds": sum(arm.seconds) / len(arm.runs),
            }
            rows.append(_row(arm, "mean", arm.overall(), gap) | costs)
        return rows

    def verdict(self) -> str:
        """Say plainly whether joint training helped here."""
        pairs = zip(self.joint.overall(), self.independent.overall(), strict=True)
        gain = interval([joint - alone for joint, alone in pairs])
        if gain.mean - (0 if math.isnan(gain.half) else gain.half) > 0:
            text = "Joint training helps: its mean test metric is"
        elif gain.mean > 0:
            text = "Joint training may help, but the seeds do not settle it: its mean metric is"
        else:
            text = "Joint training does not help here: its mean test metric is"
        text += f" {gain.mean:+.3f}" + ("" if math.isnan(gain.half) else f" ± {gain.half:.3f}")
        text += " against independent training."
        worse = [t.name for t in self.joint.tasks if interval(self.gain(t)).mean < 0]
        return text + (f" It is worse on {', '.join(worse)}." if worse else "")


def compare(config: Config, seeds: int, on_run: OnRun = lambda name, seed: None) -> Comparison:
    """Run the three ways of training with ``seeds`` seeds each.

    Independent training takes the same local steps; centralised training sees, per round, as
    many examples as all clients together. An interval over seeds needs two or more.
    """
    return Comparison(
        run_arm("joint", config, seeds, on_run=on_run),
        run_arm("independent", independent(config), seeds, on_run=on_run),
        run_arm("centralised", centralised(config), seeds, problem=pooled_problem, on_run=on_run),
    )


def show(comparison: Comparison, console: Console) -> None:
    """Print the table and the verdict."""
    table = Table(title="test metric, mean and 95 % interval over seeds")
    columns = ["task", "arm", "test", "train - test", "rounds to target", "MB", "seconds"]
    for column in columns:
        table.add_column(column, justify="left" if column in ("task", "arm") else "right")
    rows = sorted(comparison.rows(), key=lambda row: row["task"] == "mean")
    order = list(dict.fromkeys(row["task"] for row in rows))
    for row in sorted(rows, key=lambda row: order.index(row["task"])):
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(table)
    console.print("target: the test metric at which independent training ends, seed by seed")
    console.print(comparison.verdict())


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as CSV."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _row(arm: Arm, label: str, test: list[float], gap: list[float]) -> dict[str, Any]:
    return {
        "task": label,
        "arm": arm.name,
        "test": str(interval(test)),
        "train - test": f"{interval(gap).mean:+.3f}",
    }


def _median(rounds: list[float]) -> str:
    reached = sorted(r for r in rounds if math.isfinite(r))
    if not reached:
        return "never"
    text = f"{reached[(len(reached) - 1) // 2]:g}"
    return text if len(reached) == len(rounds) else f"{text} ({len(reached)} of {len(rounds)})"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
