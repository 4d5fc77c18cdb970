"""Tables: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedjoint.data.files import read_text
from fedjoint.errors import UserError


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        columns: name -> ``n`` cells.
        places: ``n`` names of the rows (file:line) for errors.
    """

    columns: dict[str, list[str]]
    places: list[str]

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as ``[n]`` float32, NaN where a cell is no number."""
        found = [number(cell) for cell in self.columns[name]]
        return np.array([np.nan if number is None else number for number in found], np.float32)


def cell(value: Any) -> str:
    """Write a value as a cell: nothing for None, and lists of numbers with spaces between."""
    if value is None:
        return ""
    if isinstance(value, list | tuple | np.ndarray):
        return " ".join(str(float(item)) for item in value)
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)


def read_table(path: Path, encoding: str | None) -> Table:
    """Read one CSV or Parquet file.

    Raises:
        UserError: it cannot be read, is malformed, or has no rows.
    """
    table = _parquet(path) if path.suffix == ".parquet" else _csv(path, encoding)
    if not table.places:
        raise UserError(f"{path}: the table has no rows; it needs a header and rows")
    return table


def _csv(path: Path, encoding: str | None) -> Table:
    reader = csv.reader(io.StringIO(read_text(path, encoding), newline=""), strict=True)
    rows, places = [], []
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            double = next(name for name in header if header.count(name) > 1)
            raise UserError(
                f"{path}:1: two columns have the same name, {double!r}; give each column one in "
                "the first line"
            )
        for row in reader:
            if not row:  # an empty line
                continue
            place = f"{path}:{reader.line_num}"
            if len(row) != len(header):
                raise UserError(f"{place}: {len(row)} cells, but the header has {len(header)}")
            rows.append(row)
            places.append(place)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None
    cells = [list(column) for column in zip(*rows, strict=True)]
    return Table(dict(zip(header, cells, strict=False)), places)


def _parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: Parquet needs pyarrow; pip install 'fedjoint[parquet]'") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"{path}: not a Parquet file, or a broken one: {first}") from None
    columns = {name: [cell(v) for v in table[name].to_pylist()] for name in table.column_names}
    return Table(columns, [f"{path}: row {i}" for i in range(table.num_rows)])


def join(tables: Sequence[Table]) -> Table:
    """Return the rows of all tables.

    Raises:
        UserError: their columns differ.
    """
    first = tables[0]
    for table in tables:
        odd = set(table.columns) ^ set(first.columns)
        if odd:
            raise UserError(
                f"{table.places[0]}: column {min(odd)!r} is not in every file; give files with "
                "the same columns"
            )
    columns = {name: [c for t in tables for c in t.columns[name]] for name in first.columns}
    return Table(columns, [place for table in tables for place in table.places])


def number(cell: str) -> float | None:
    """Return the number in a cell; None where there is none."""
    try:
        return float(cell)
    except ValueError:
        return None
