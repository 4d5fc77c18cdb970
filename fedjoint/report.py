"""Tables of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fedjoint.simulation import RunResult


def show_run(result: RunResult, console: Console) -> None:
    """Print the metrics of the last evaluation, and where everything is."""
    table = Table(title=f"{result.config.name}: after {result.config.rounds} rounds")
    for column in ("task", "train", "valid", "test"):
        table.add_column(column, justify="left" if column == "task" else "right")
    splits = result.metrics
    for task in splits.get("test", {}):
        values = [splits[split].get(task) for split in ("train", "valid", "test")]
        table.add_row(task, *("-" if v is None else f"{v:.4f}" for v in values))
    console.print(table)
    seconds = sum(record["seconds"]["round"] for record in result.records)
    sent = sum(sum(record["bytes"].values()) for record in result.records)
    failed = sum(len(record["clients"]["failed"]) for record in result.records)
    console.print(
        f"{seconds:.1f} s, {sent / 1e6:.1f} MB between server and clients, {failed} failures"
    )
    console.print(f"run directory: {result.path}", soft_wrap=True)
