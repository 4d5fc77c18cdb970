"""What is printed of strategies side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from fedjoint._util.wording import figure
from fedjoint.experiments.arms import mean
from fedjoint.experiments.bench import Bench
from fedjoint.experiments.costs import budgets, spreads, tried
from fedjoint.experiments.intervals import LEVEL, from_columns, how
from fedjoint.experiments.tables import side_by_side, table

#: What marks a task's metric that is worse than a reference's.
MARKS = {"alone": "*", "per task": "†"}


def show_bench(bench: Bench, rate: float, console: Console) -> None:
    """Print the ranking, the metrics of every task, costs, and the spread over clients.

    Args:
        bench: the arms.
        rate: the scenario's learning rate.
        console: where to print.
    """
    rows = bench.rows()
    arms = [bench.everyone[row["strategy"]] for row in rows]
    _ranking(bench, rows, console)
    _raw(rows, console)
    _tasks(bench, rows, console)
    console.print(budgets(arms))
    for made in spreads(arms):
        console.print(made)
    console.print(tried(bench.tuning, rate))
    for name, why in bench.left_out.items():
        console.print(f"{name} is left out: {why}", markup=False)
    for name, why in bench.failed.items():
        console.print(f"{name} failed: {why}", markup=False)


def _ranking(bench: Bench, rows: Sequence[dict[str, Any]], console: Console) -> None:
    cells = [
        [row["strategy"], f"{row['mean rank']:.2f}", *(_delta_m(row, r) for r in bench.references)]
        for row in rows
    ]
    headers = ["strategy", "rank", *(f"Delta-m %\nvs {name}" for name in bench.references)]
    console.print(table("strategies by mean rank over tasks and seeds", headers, cells))
    console.print("Delta-m: average relative gain over tasks, paired by seed; positive is better")
    console.print(f"*: not zero, p < {LEVEL:g} by Holm's method over its column")
    console.print(how(bench.overlap))
    if "per task" in bench.references:
        console.print(f"per task: one backbone a task, merged by {bench.merged_by}", markup=False)
    console.print()


def _delta_m(row: dict[str, Any], reference: str) -> str:
    if row["strategy"] == reference:
        return "reference "
    mark = "*" if row[f"p vs {reference}"] < LEVEL else " "
    return f"{from_columns(f'Delta-m % vs {reference}', row):+.2f}{mark}"


def _raw(rows: Sequence[dict[str, Any]], console: Console) -> None:
    cells = [
        [
            row["strategy"],
            f"{from_columns('test', row):.3f}",
            f"{from_columns('worst task', row):.3f}",
        ]
        for row in rows
    ]
    headers = ["strategy", "mean\nof tasks", "worst\ntask"]
    console.print(table("raw test metrics, for information", headers, cells))


def _tasks(bench: Bench, rows: Sequence[dict[str, Any]], console: Console) -> None:
    tasks = next(iter(bench.references.values())).tasks
    cells = {
        f"{task.name}\n{metric.name}": [
            f"{from_columns(measure, row):.2f}{_marks(bench, row, measure)}".replace(" ± ", "±")
            for row in rows
        ]
        for task in tasks
        for measure, metric in task.measures.items()
    }
    names = [row["strategy"] for row in rows]
    title = "test metrics, mean and 95 % interval over seeds"
    for made in side_by_side(title, "strategy", names, cells):
        console.print(made)
    if bench.trivial:
        scores = [f"{task} {figure(mean(values), 2)}" for task, values in bench.trivial.items()]
        console.print(f"each client's most frequent class, or its mean: {', '.join(scores)}")
    if bench.idle:
        console.print(f"nobody is better on {', '.join(bench.idle)}: it is in no Delta-m")
    for reference in bench.references:
        console.print(
            f"{MARKS[reference]}: worse than {reference}, p < {LEVEL:g} by Holm's method over "
            "all tasks and strategies"
        )
    console.print()


def _marks(bench: Bench, row: dict[str, Any], task: str) -> str:
    """Return the marks of the references that a metric is worse than, each in its place."""
    marks = ""
    for reference in bench.references:
        p = row.get(f"{task} p vs {reference}", math.nan)
        worse = p < LEVEL and row[f"{task} gain vs {reference}"] < 0
        marks += MARKS[reference] if worse else " "
    return marks
