"""Joint against independent against centralised training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console

from fedjoint.arms import Arm, OnRun, gains, independent, mean, run_arm, sign
from fedjoint.centralised import run_centralised
from fedjoint.config.schema import Config
from fedjoint.engines.session import session
from fedjoint.model.tasks import Task
from fedjoint.report import table
from fedjoint.statistics import Interval, columns, from_columns, interval


@dataclass(frozen=True)
class Comparison:
    """Three ways of training on the same data, over the same seeds.

    Attributes:
        joint: clients share the backbone.
        independent: every client alone, with the same local budget.
        centralised: everyone's data in one place, the upper reference.
        rates: the learning rate of each, by name.
    """

    joint: Arm
    independent: Arm
    centralised: Arm
    rates: dict[str, float]

    @property
    def arms(self) -> tuple[Arm, Arm, Arm]:
        """The three."""
        return self.joint, self.independent, self.centralised

    def gain(self, task: Task) -> list[float]:
        """Return by how much joint is better than independent on the test data, by seed."""
        return gains(self.joint, self.independent, task)

    def rounds_to_target(self, arm: Arm, task: Task) -> list[float]:
        """Return the first evaluated round at which ``arm`` is as good as independent ends.

        NaN where it never is.
        """
        up = sign(task)
        found = []
        for run, target in enumerate(self.independent.final(task.name)):
            reached = [r for r, value in arm.curve(run, task.name) if up * value >= up * target]
            found.append(float(reached[0]) if reached else math.nan)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per task and arm, and one per arm with the mean over tasks.

        ``test`` is the mean over seeds, ``test 95 %`` half the width of its interval; ``rounds to
        target`` is the median of the ``reached`` seeds that get there.
        """
        rows: list[dict[str, Any]] = []
        for task in self.joint.tasks:
            for arm in self.arms:
                gap = sign(task) * mean(
                    _differences(arm.final(task.name, "train"), arm.final(task.name))
                )
                reached = sorted(r for r in self.rounds_to_target(arm, task) if math.isfinite(r))
                rows.append(
                    _row(task.name, task.metric_fn.name, arm, arm.final(task.name))
                    | {
                        "train - test": gap,
                        "rounds to target": median(reached) if reached else "",
                        "reached": len(reached),
                    }
                )
        for arm in self.arms:
            rows.append(
                _row("mean", "", arm, arm.scores())
                | {
                    "train - test": mean(_differences(arm.scores("train"), arm.scores())),
                    "learning rate": self.rates[arm.name],
                    "MB": mean(arm.megabytes),
                    "seconds": mean(arm.seconds),
                }
            )
        return rows

    def verdict(self) -> str:
        """Say plainly whether joint training helped here."""
        gain = interval(_differences(self.joint.scores(), self.independent.scores()))
        if math.isnan(gain.mean):
            return "Nobody can tell whether joint training helps here: a test metric is undefined."
        if gain.known < gain.of and gain.mean > 0:
            text = "Joint training may help, but a metric is undefined in some seeds"
        elif gain.mean - gain.half > 0:
            text = "Joint training helps"
        elif gain.mean > 0:
            seeds = "one seed does" if math.isnan(gain.half) else "the seeds do"
            text = f"Joint training may help, but {seeds} not settle it"
        else:
            text = "Joint training does not help here"
        text += f": {gain:+.3f} in the mean test metric against independent training."
        worse = [task.name for task in self.joint.tasks if mean(self.gain(task)) < 0]
        return text + (f" It is worse on {', '.join(worse)}." if worse else "")


def compare(
    config: Config,
    seeds: int,
    rates: Sequence[float] = (),
    on_run: OnRun = lambda name, seed: None,
) -> Comparison:
    """Run the three ways of training with ``seeds`` seeds each; an interval needs two or more.

    Args:
        config: the joint run. Independent training takes the same local steps, centralised
            training sees as many examples per round as all clients together.
        seeds: how many.
        rates: learning rates that centralised training chooses from, see
            :func:`fedjoint.centralised.run_centralised`.
        on_run: hears of each run as it starts.
    """
    with session(config.engine):
        joint = run_arm("joint", config, seeds, on_run=on_run)
        alone = run_arm("independent", independent(config), seeds, on_run=on_run)
    pooled, best = run_centralised(config, seeds, rates, on_run=on_run)
    own = config.local.optimiser.lr
    return Comparison(joint, alone, pooled, {joint.name: own, alone.name: own, pooled.name: best})


def show(comparison: Comparison, console: Console) -> None:
    """Print the tables and the verdict."""
    rows = comparison.rows()
    seeds = len(comparison.joint.runs)
    headers = ["task", "metric", "arm", "test", "train\n- test", "rounds\nto target"]
    cells = []
    for row in rows:
        rounds = "" if row["task"] == "mean" else "never"
        if row.get("reached"):
            rounds = f"{row['rounds to target']:g}"
            rounds += "" if row["reached"] == seeds else f" ({row['reached']} of {seeds})"
        test = f"{from_columns('test', row):.3f}"
        gap = f"{Interval(row['train - test'], math.nan):+.3f}"
        cells.append([row["task"], row["metric"], row["arm"], test, gap, rounds])
    title = "test metric, mean and 95 % interval over seeds"
    console.print(table(title, headers, cells, left=3, grouped=True))
    console.print("target: the test metric at which independent training ends, seed by seed")
    console.print()
    costs = [
        [row["arm"], f"{row['learning rate']:g}", f"{row['MB']:.1f}", f"{row['seconds']:.1f}"]
        for row in rows
        if row["task"] == "mean"
    ]
    headers = ["arm", "learning rate", "MB sent\nto train", "seconds"]
    console.print(table("a run, mean over seeds", headers, costs))
    console.print(comparison.verdict())


def _row(task: str, metric: str, arm: Arm, test: list[float]) -> dict[str, Any]:
    row = {"task": task, "metric": metric, "arm": arm.name, "seeds": len(test)}
    return row | columns("test", interval(test))


def _differences(first: list[float], second: list[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]
