"""The table of a suite: a row for each comparison and task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from fedjoint.experiments.auto import AUTO
from fedjoint.experiments.centralised import CENTRALISED
from fedjoint.experiments.compare import COSTS, MEAN, TRIVIAL, Comparison
from fedjoint.experiments.intervals import LEVEL, Interval, columns, from_columns, interval
from fedjoint.experiments.per_task import PER_TASK
from fedjoint.experiments.tables import side_by_side, table
from fedjoint.experiments.ways import ALONE, JOINT, WHOLE
from fedjoint.model.tasks import Task

#: Gains of a row, by column: what is gained, from what.
GAINS = {
    "per task - alone": "more data for the task",
    "joint - per task": "transfer across tasks",
    "joint - alone": "both",
    "auto - best other": None,
}

_ROWS = "comparison: task"

#: What the mean over tasks is called.
ALL = "Delta-m %"


def rows_of(name: str, found: Comparison) -> Iterator[dict[str, Any]]:
    """Yield a row for each task of a comparison, and one of all tasks together.

    ``alone``, ``joint`` and so on are means over seeds of the test metric, ``... 95 %`` half the
    widths of intervals, ``... p`` p-values of gains (corrected as in ``fedjoint compare``), and
    ``joint rounds`` (``steps``, ``MB``, ``seconds``) what the arm takes to reach what training
    alone reaches, in ``joint reached`` of the seeds. Where clients are tasks, rows
    are of all together, and of the mean over clients.

    Args:
        name: of the comparison.
        found: the comparison.
    """
    gains = {(row["part"], row["on"]): row for row in found.gains()}
    seeds = len(found.arms[JOINT.name].seeds)
    for task in [found.pooled] if found.pooled else found.tasks:
        row = {"comparison": name, "task": task.name, "metric": task.metric_fn.name, "seeds": seeds}
        if found.trivial:
            row[TRIVIAL] = interval(found.trivial[task.name]).mean
        row |= _tests(found, task.name, task.metric_fn.name)
        row |= _gains(gains, task.name) | _regret(found, task)
        for compared in found.rows:
            if compared["task"] == task.name and "reached" in compared:
                for cost in COSTS.values():
                    row[f"{compared['arm']} {cost}"] = compared[f"{cost} to target"]
                row[f"{compared['arm']} reached"] = compared["reached"]
        yield row
    for at, metric in enumerate(found.pooled.metrics if found.pooled else ()):
        row = {"comparison": name, "task": MEAN, "metric": metric.name, "seeds": seeds}
        row |= _tests(found, MEAN, metric.name)
        yield row if at else row | _gains(gains, MEAN)
    row = {"comparison": name, "task": ALL, "metric": "%", "seeds": seeds}
    yield row | _gains(gains, ALL)


def _tests(found: Comparison, task: str, metric: str) -> dict[str, Any]:
    """Return the test metric of every arm."""
    cells: dict[str, Any] = {}
    for row in found.rows:
        if (row["task"], row["metric"]) == (task, metric) and row["arm"] in found.arms:
            cells |= columns(row["arm"], from_columns("test", row))
    return cells


def _gains(gains: Mapping[tuple[str, str], Mapping[str, Any]], on: str) -> dict[str, Any]:
    """Return the parts of the gain on a task, or on all together."""
    cells: dict[str, Any] = {}
    for column, part in GAINS.items():
        if part and (gain := gains.get((part, on))):
            cells |= columns(column, from_columns("gain", gain)) | {f"{column} p": gain["p"]}
    return cells


def _regret(found: Comparison, task: Task) -> dict[str, Any]:
    """Return ``auto`` less the arm that is best on the test data, which no data could pick."""
    if AUTO not in found.arms:
        return {}
    pair = found.regret(task)
    column = "auto - best other"
    return columns(column, pair.interval(pair.gain(task))) | {"best other": pair.reference.name}


def show_suite(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print metrics and gains of a suite, and what joint training takes to be as good as alone."""
    known = [ALONE.name, PER_TASK.name, JOINT.name, WHOLE.name, AUTO, CENTRALISED.name]
    arms = [arm for arm in known if any(row.get(arm) is not None for row in rows)]
    of_tasks = [row for row in rows if row["task"] != ALL]
    columns_of = {TRIVIAL: [_text(row, TRIVIAL) for row in of_tasks]}
    columns_of |= {arm.replace(", ", ",\n"): [_value(row, arm) for row in of_tasks] for arm in arms}
    title = "test metric, mean and 95 % interval"
    for made in side_by_side(title, _ROWS, [_where(row) for row in of_tasks], columns_of):
        console.print(made)
    columns_of = {c.replace(" - ", "\n- "): [_change(row, c) for row in rows] for c in GAINS}
    title = "gain on the test data, paired by seed"
    for made in side_by_side(title, _ROWS, [_where(row) for row in rows], columns_of):
        console.print(made)
    console.print(f"*: not zero, p < {LEVEL:g}, corrected as in fedjoint compare")
    console.print("best other: the arm with the best mean on the test data")
    cells = [
        [_where(row), arm, *(_cost(row, f"{arm} {cost}") for cost in COSTS.values()), reached]
        for row in of_tasks
        for arm in (ALONE.name, PER_TASK.name, JOINT.name)
        if f"{arm} reached" in row
        for reached in [f"{row[f'{arm} reached']} of {row['seeds']}"]
    ]
    headers = [_ROWS, "arm", "rounds", "steps", "MB", "seconds", "reached\nin seeds"]
    title = "what it takes to reach what training alone reaches at best"
    console.print(table(title, headers, cells, left=2, grouped=True))


def _where(row: Mapping[str, Any]) -> str:
    if row["task"] == ALL:
        return f"{row['comparison']}: {ALL}"
    return f"{row['comparison']}: {row['task']}, {row['metric']}"


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def _value(row: Mapping[str, Any], column: str) -> str:
    return f"{_interval(row, column):.3f}" if row.get(column) is not None else ""


def _change(row: Mapping[str, Any], column: str) -> str:
    if row.get(column) is None:
        return ""
    p = row.get(f"{column} p")
    mark = "*" if p is not None and p < LEVEL else ""
    return f"{_interval(row, column):{'+.2f' if row['task'] == ALL else '+.3f'}}{mark}"


def _interval(row: Mapping[str, Any], column: str) -> Interval:
    """Return the interval of a row that was JSON, where NaN is nothing."""
    known = {key: math.nan if value is None else value for key, value in row.items()}
    return from_columns(column, known)


def _cost(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    return "never" if value == "" else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
