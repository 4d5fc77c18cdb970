"""What is printed of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from fedjoint.experiments.auto import AUTO, Auto, in_words
from fedjoint.experiments.compare import COSTS, Comparison
from fedjoint.experiments.costs import budgets, spreads, tried
from fedjoint.experiments.groups import GROUPS, shown
from fedjoint.experiments.intervals import LEVEL, Interval, from_columns, how
from fedjoint.experiments.tables import table
from fedjoint.experiments.verdict import verdict
from fedjoint.experiments.ways import ALONE

#: Gains that stand side by side in a table.
_ABREAST = 3


def show_compare(comparison: Comparison, rate: float, console: Console) -> None:
    """Print metrics, the parts of the gain, costs, spread over clients, and the verdict.

    Args:
        comparison: the arms.
        rate: the scenario's learning rate.
        console: where to print.
    """
    arms = list(comparison.arms.values())
    _metrics(comparison, console)
    for line in [*_groups(comparison), *_auto(comparison)]:
        console.print(line, markup=False)
    for name, why in comparison.left_out.items():
        console.print(f"{name} is left out: {why}", markup=False)
    console.print()
    _gains(comparison, console)
    _costs(comparison, console)
    console.print(budgets(arms))
    for made in spreads(arms):
        console.print(made)
    console.print(tried(comparison.tuning, rate))
    console.print()
    for line in verdict(comparison):
        console.print(line, markup=False)


def _metrics(comparison: Comparison, console: Console) -> None:
    cells = []
    for row in comparison.rows:
        if row["task"] in _clients(comparison):
            continue
        task = row["task"] if row["metric"] else "raw mean"
        if _apart(comparison, row["task"], row["arm"]):
            cells.append([task, row["metric"], row["arm"], "", "", "", ""])
            continue
        test = f"{from_columns('test', row):.3f}"
        best, last, gap = (
            f"{Interval(row[what], math.nan):{spec}}" if what in row else ""
            for what, spec in (("best round", ".0f"), ("last", ".3f"), ("train - test", "+.3f"))
        )
        cells.append([task, row["metric"], row["arm"], test, best, last, gap])
    headers = ["task", "metric", "arm", "test", "in\nround", "last", "train\n- test"]
    title = "test metric, mean and 95 % interval over seeds"
    console.print(table(title, headers, cells, left=3, grouped=True))
    console.print(how(comparison.overlap))
    console.print("test: in the best round by validation, one for all tasks that share a model")
    console.print("trivial: each client's most frequent class, or its mean")
    if comparison.pooled:
        console.print("of single clients, which are tasks here: compare.csv and gains.csv")
        for name in comparison.arms:
            if _apart(comparison, comparison.pooled.name, name):
                console.print(
                    f"{name}: nothing of all clients together, as each of its runs has some of them"
                )


def _apart(comparison: Comparison, task: str, *arms: str) -> bool:
    """Say whether one of the arms measures single clients alone, and not all together."""
    pooled = comparison.pooled
    own = [comparison.arms[arm] for arm in arms if arm in comparison.arms]
    return pooled is not None and task == pooled.name and any(arm.apart(task) for arm in own)


def _clients(comparison: Comparison) -> set[str]:
    """Return what clients are called where they are tasks: too many to print."""
    return {task.name for task in comparison.tasks} if comparison.pooled else set()


def _groups(comparison: Comparison) -> Iterator[str]:
    """Yield lines that say which groups of tasks were trained, and what it took to choose them."""
    if GROUPS not in comparison.arms:
        return
    arm = comparison.arms[GROUPS]
    seeds: dict[str, int] = {}
    for groups in shown(arm):
        seeds[groups] = seeds.get(groups, 0) + 1
    for groups, count in seeds.items():
        yield f"groups: {groups} in {count} of {len(arm.seeds)} seeds"
    others = [run for seed in arm.seeds for run in seed.others]
    if others:
        records = [record for run in others for record in run.records]
        steps = sum(record.steps.total for record in records)
        seconds = sum(record.seconds.round for record in records)
        yield (
            f"groups, by validation data: beside those chosen, {len(others)} runs of all seeds "
            f"together took {steps:,} steps and {seconds:,.0f} s, which the costs below leave out"
        )


def _auto(comparison: Comparison) -> Iterator[str]:
    """Yield lines that say which arm each task has by validation data."""
    arm = comparison.arms.get(AUTO)
    if isinstance(arm, Auto):
        yield from in_words(arm)
        yield "auto takes all these arms; the costs below are of those that it picks"


def _costs(comparison: Comparison, console: Console) -> None:
    """Print what it takes each arm to reach what training alone reaches."""
    seeds, cells = len(comparison.arms[ALONE.name].seeds), []
    for row in comparison.rows:
        if "reached" in row and row["task"] not in _clients(comparison):
            if _apart(comparison, row["task"], row["arm"]):
                continue
            taken = [row[f"{what} to target"] for what in COSTS.values()]
            shown = [_thrifty(value) if value != "" else "never" for value in taken]
            cells.append([row["task"], row["arm"], *shown, f"{row['reached']} of {seeds}"])
    headers = ["task", "arm", "rounds", "steps\nin all", "MB", "seconds", "reached\nin seeds"]
    title = "what it takes to reach what training alone reaches at best, seed by seed"
    console.print(table(title, headers, cells, left=2, grouped=True))
    console.print("medians of the seeds that get there; of all tasks that share a model together")
    console.print()


def _thrifty(value: float) -> str:
    """Write a cost with as many digits as tell."""
    return f"{value:,.1f}" if value < 100 and value != round(value) else f"{value:,.0f}"


def _gains(comparison: Comparison, console: Console) -> None:
    metrics = {task.name: task.metric_fn.name for task in comparison.measured}
    found: dict[str, list[str]] = {}
    for row in comparison.gains():
        if row["on"] in _clients(comparison):
            continue
        blank = _apart(comparison, row["on"], row["from"], row["to"])
        found.setdefault(row["on"], []).append("" if blank else _gain(row))
    headers = [
        f"{pair.reference.name}\nto {pair.arm.name}:\n{part.replace(' ', chr(10), 1)}"
        for part, pair in comparison.parts.items()
    ]
    title = "gain on the test data, paired by seed"
    for at in range(0, len(headers), _ABREAST):
        side = slice(at, at + _ABREAST)
        cells = [[on, metrics.get(on, ""), *gained[side]] for on, gained in found.items()]
        console.print(table(title, ["on", "metric", *headers[side]], cells, left=2))
    console.print("Delta-m: average relative gain over tasks; tasks won: ties count half")
    console.print(
        f"*: not zero, p < {LEVEL:g}, corrected by Holm's method for the {len(comparison.parts)} "
        "Delta-m, and for the tasks of a column"
    )
    console.print()


def _gain(row: dict[str, Any]) -> str:
    gain = from_columns("gain", row)
    if row["on"] == "tasks won":
        return "nan " if math.isnan(gain.mean) else f"{gain.mean:.0%} "
    mark = "*" if row["p"] < LEVEL else " "
    spec = "+.2f" if row["on"] == "Delta-m %" else "+.3f"
    return f"{gain:{spec}}{mark}"
