"""What is printed of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fedjoint._util.wording import figure
from fedjoint.data.base import CENTRAL, SPLITS
from fedjoint.experiments.tables import table
from fedjoint.runs.record import Metrics, Seconds

if TYPE_CHECKING:
    from fedjoint.runs.result import RunResult

#: Share of what a run took from which on it is no news that another engine takes less.
_CLEARLY = 0.8


def metrics_table(title: str, result: RunResult) -> Table:
    """Return the metrics of the last evaluation, and their spread over clients where known."""
    splits = result.metrics
    spreads = [r.spread for r in result.records if r.spread]
    measured = [split for split in (*SPLITS, CENTRAL) if any_known(splits.get(split))]
    rows, headers = [], ["task", *measured]
    if spreads:
        headers += ["std over\nclients", "worst\nclient", "worst\ntenth"]
    for task in splits.get("test", {}):
        values = [splits[split].get(task) for split in measured]
        if spreads:
            own = spreads[-1].get(task, {})
            values += [own.get(what) for what in ("std", "worst", "worst_tenth")]
        rows.append([task, *("-" if v is None else figure(v, 4) for v in values)])
    return table(title, headers, rows)


def show_what_inline_takes(result: RunResult, seconds: float, console: Console) -> None:
    """Say what a run on Ray would have taken in one process, where that is less.

    Args:
        result: of the run.
        seconds: that it took, with the start of its workers.
        console: where to say so.
    """
    if result.config.engine.name != "ray":
        return
    own = sum(_one_after_the_other(record.seconds) for record in result.records)
    if own < _CLEARLY * seconds:
        console.print(
            f"--engine inline would have taken about {own:.1f} s where Ray took {seconds:.1f} with "
            "the start of its workers, and gives the same bits",
            soft_wrap=True,
        )


def _one_after_the_other(took: Seconds) -> float:
    """Return what a round takes where one process does the work of all; to evaluate, alike."""
    nodes = took.work / took.train if took.train else 1.0
    return took.round + (nodes - 1) * (took.train + took.evaluate)


def any_known(metrics: Metrics | None) -> bool:
    """Return whether any metric has a value."""
    return any(value is not None for value in (metrics or {}).values())


def show_run(result: RunResult, console: Console) -> None:
    """Print the metrics of the last evaluation, rounds without a merge, and where everything is."""
    title = f"{result.config.name}: after {result.config.rounds} rounds"
    console.print(metrics_table(title, result))
    seconds = sum(record.seconds.round for record in result.records)
    sent = sum(record.bytes.down + record.bytes.up for record in result.records)
    failed = sum(len(record.clients.failed) for record in result.records)
    steps = sum(record.steps.total for record in result.records)
    console.print(
        f"{seconds:.1f} s, {sent / 1e6:.1f} MB sent to train, {failed} failures, "
        f"{steps:,} gradient steps"
    )
    kept = [record.kept for record in result.records if record.kept]
    if kept:
        console.print(
            f"in {len(kept)} of {len(result.records)} rounds the backbone was kept; the last time: "
            f"{kept[-1]}",
            markup=False,
        )
    console.print(f"run directory: {result.path}", soft_wrap=True, markup=False)
