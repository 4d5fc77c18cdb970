"""Tables, as narrow as 80 columns where their contents allow, and never cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

_WIDTH, _NAME = 79, 16  # columns of a table, and most of them for a name that may break


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


def side_by_side(
    title: str, name: str, names: Sequence[str], cells: Mapping[str, Sequence[str]]
) -> Iterator[Table]:
    """Yield tables of as many columns each as fit, one row per name.

    Args:
        title: above each table.
        name: header of the names.
        names: of the rows.
        cells: header -> the column's cells.
    """
    widest = max(len(text) for h, c in cells.items() for text in [*h.split("\n"), *c])
    side = max(1, (_WIDTH - min(_NAME, max(map(len, names)))) // (widest + 2))
    for first in range(0, len(cells), side):
        shown = list(cells)[first : first + side]
        rows = [list(line) for line in zip(names, *(cells[h] for h in shown), strict=True)]
        yield table(title, [name, *shown], rows)
