"""Columns of a table -> features: all that are numbers, and a word about every other."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from fedjoint.data.labels import as_float32
from fedjoint.data.numbers import is_date, looks_like_a_number, means_missing, number
from fedjoint.data.tabular import Table
from fedjoint.errors import UserError

_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+")


def choose_features(table: Table, taken: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Return the columns of numbers, and why each other one that is not ``taken`` is none.

    A column in which some cells are numbers, or look as if they were meant to be, counts as one of
    numbers: :func:`feature` then names the first cell that is none.

    Raises:
        UserError: no column is left.
    """
    chosen, left_out = [], {name: why for name, why in table.unread.items() if name not in taken}
    for name, cells in table.columns.items():
        if name not in taken:
            why = _no_feature(name, cells)
            if why is None:
                chosen.append(name)
            else:
                left_out[name] = why
    if not chosen:
        has = "".join(f"; {name!r} is {why}" for name, why in list(left_out.items())[:3])
        raise UserError(
            f"{table.place(0)}: no column of numbers is left for features{has}; name some in "
            "data.source.options.features"
        )
    return chosen, left_out


def _no_feature(name: str, cells: Sequence[str]) -> str | None:
    """Return why a column is no feature, None where it is one."""
    if not name:
        return "no name"
    if _INDEX.fullmatch(name):
        return "an index of pandas"
    filled = {cell for cell in cells if cell.strip() and not means_missing(cell)}
    if not filled:
        return "empty"
    if any(number(cell) is not None for cell in filled):
        return None
    # A code such as 'A-12' is a text, and so is a column of which few cells look like numbers.
    if 2 * sum(looks_like_a_number(cell) for cell in filled) >= len(filled):
        return None
    return "dates" if all(is_date(cell) for cell in filled) else "text"


def feature(table: Table, name: str) -> np.ndarray:
    """Return a column as ``[n]`` float32.

    Raises:
        UserError: a cell is no finite number, or float32 is too coarse for the column.
    """
    values = table.numbers(name)
    wrong = ~np.isfinite(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{table.place(row)}: feature {name!r} is {table.columns[name][row]!r}, not a finite "
            "number such as -1.5; fix the cell, or leave the column out by "
            f"data.source.options.drop = [{name!r}]"
        )
    return as_float32(f"feature {name!r}", values, table.place)
