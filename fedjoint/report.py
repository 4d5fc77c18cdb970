"""Tables, as narrow as 80 columns where their contents allow, and never cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fedjoint.simulation import RunResult


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    grouped: bool = False,
) -> Table:
    """Return a table whose words may break into lines, but whose headers and numbers never do.

    Args:
        title: above the table.
        columns: headers, with line breaks where they are long.
        rows: cells.
        left: how many columns, from the left, hold words; the others hold numbers.
        grouped: put a blank line between rows with different first cells.
    """
    made = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for number, column in enumerate(columns):
        words = number < left
        lines = [*column.split("\n"), *(row[number] for row in rows)]
        made.add_column(
            column,
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=not words,
            min_width=None if words else max(map(len, lines)),
            vertical="bottom",
        )
    for row, following in zip(rows, [*rows, None][1:], strict=True):
        # Text, not markup: a name may have brackets.
        made.add_row(
            *map(Text, row),
            end_section=grouped and following is not None and row[0] != following[0],
        )
    return made


def metrics_table(title: str, result: RunResult) -> Table:
    """Return the metrics of the last evaluation."""
    splits = result.metrics
    rows = []
    for task in splits.get("test", {}):
        values = [splits[split].get(task) for split in ("train", "valid", "test")]
        rows.append([task, *("-" if v is None else f"{v:.4f}" for v in values)])
    return table(title, ["task", "train", "valid", "test"], rows)


def show_run(result: RunResult, console: Console) -> None:
    """Print the metrics of the last evaluation, rounds without a merge, and where everything is."""
    title = f"{result.config.name}: after {result.config.rounds} rounds"
    console.print(metrics_table(title, result))
    seconds = sum(record.seconds.round for record in result.records)
    sent = sum(r.bytes.down + r.bytes.up for r in result.records)
    failed = sum(len(record.clients.failed) for record in result.records)
    console.print(f"{seconds:.1f} s, {sent / 1e6:.1f} MB sent to train, {failed} failures")
    kept = [record.kept for record in result.records if record.kept]
    if kept:
        console.print(
            f"in {len(kept)} of {len(result.records)} rounds the backbone was kept; the last time: "
            f"{kept[-1]}",
            markup=False,
        )
    console.print(f"run directory: {result.path}", soft_wrap=True, markup=False)
