"""Many measurements -> rows to compare: clients per second, and in ratio to one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .cell import Cell, Outcome
from .peak import operations, peak

#: Parts of a round that the engine tells, in the order of a round.
PARTS = ("broadcast", "train", "gather", "merge")


class Results:
    """The outcomes of every cell, one per repeat."""

    def __init__(self) -> None:
        self.outcomes: dict[Cell, list[Outcome]] = {}

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """Take the outcome of one repeat."""
        self.outcomes.setdefault(cell, []).append(outcome)

    def speed(self, cell: Cell) -> float:
        """Return clients per second, the median of the repeats' medians; NaN if none was done."""
        done = [rate(cell, outcome) for outcome in self.outcomes.get(cell, []) if outcome.seconds]
        return median(done) if done else math.nan

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per cell, with ratios to Flower, sequential PyTorch and the kernel."""
        return [self._row(cell) for cell in self.outcomes]

    def _row(self, cell: Cell) -> dict[str, Any]:
        outcomes, speed = self.outcomes[cell], self.speed(cell)
        rates = [rate(cell, outcome) for outcome in outcomes if outcome.seconds]
        parts = {name: [o.parts[name] for o in outcomes if name in o.parts] for name in PARTS}
        train = [
            median(o.seconds) - o.parts["train"]
            for o in outcomes
            if o.seconds and "train" in o.parts
        ]
        return {
            "workload": cell.workload,
            "clients": cell.clients,
            "contestant": cell.contestant,
            "threads": cell.threads,
            "clients per second": speed,
            "lowest": min(rates, default=math.nan),
            "highest": max(rates, default=math.nan),
            "times flower": speed / self._others(cell, "flower"),
            "times sequential": speed / self._others(cell, "sequential"),
            "of kernel": speed / self._others(cell, "kernel", cell.threads),
            "of peak": self._of_peak(cell, speed),
            "peak MB": median(outcome.megabytes for outcome in outcomes),
            **{f"{name} ms": 1e3 * median(v) if v else math.nan for name, v in parts.items()},
            "beside training ms": 1e3 * median(train) if train else math.nan,
            "problem": next((outcome.problem for outcome in outcomes if outcome.problem), ""),
        }

    def _of_peak(self, cell: Cell, speed: float) -> float:
        """Return the share of a large product's operations per second, on the CPU."""
        if cell.device != "cpu" or math.isnan(speed):
            return math.nan
        return speed * operations(cell.workload) / peak(cell.threads)

    def _others(self, cell: Cell, contestant: str, threads: int | None = None) -> float:
        """Return the best speed of a contestant on the same work (on as many threads)."""
        speeds = [
            self.speed(other)
            for other in self.outcomes
            if (other.workload, other.clients, other.contestant)
            == (cell.workload, cell.clients, contestant)
            and threads in (None, other.threads)
        ]
        return max((speed for speed in speeds if not math.isnan(speed)), default=math.nan)


def rate(cell: Cell, outcome: Outcome) -> float:
    """Return clients per second in the median round."""
    return cell.clients / median(outcome.seconds)


def show(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a table of all, and one of the rounds whose parts are known."""
    _print(
        "clients trained per second",
        {
            "work": (lambda row: row["workload"]),
            "clients": (lambda row: f"{row['clients']:,}"),
            "contestant": (lambda row: row["contestant"]),
            "threads": (lambda row: str(row["threads"])),
            "clients/s": (lambda row: _number(row["clients per second"], ",.0f")),
            "x flower": (lambda row: _number(row["times flower"], ",.1f")),
            "x seq.": (lambda row: _number(row["times sequential"], ",.1f")),
            "of kernel": (lambda row: _number(row["of kernel"], ".0%")),
            "of peak": (lambda row: _number(row["of peak"], ".0%")),
            "peak MB": (lambda row: _number(row["peak MB"], ",.0f")),
        },
        rows,
        console,
    )
    for row in rows:
        if row["problem"]:
            who = f"{row['contestant']} on {row['threads']} threads"
            where = f"{row['workload']}, {row['clients']:,} clients"
            console.print(f"{where}, {who}: {row['problem']}", markup=False)
    _print(
        "parts of a round, milliseconds",
        {
            "work": (lambda row: row["workload"]),
            "clients": (lambda row: f"{row['clients']:,}"),
            "threads": (lambda row: str(row["threads"])),
            **{part: partial(_milliseconds, f"{part} ms") for part in PARTS},
            "all but train": partial(_milliseconds, "beside training ms"),
        },
        [row for row in rows if not math.isnan(row["train ms"])],
        console,
    )


def _print(
    title: str,
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
    rows: Sequence[Mapping[str, Any]],
    console: Console,
) -> None:
    if not rows:
        return
    table = Table(title=title, box=SIMPLE, padding=(0, 0))
    for name in columns:
        left = name in ("work", "contestant")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(text(row) for text in columns.values()))
    console.print(table)


def _milliseconds(name: str, row: Mapping[str, Any]) -> str:
    return _number(row[name], ",.1f")


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
