"""Tables: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedjoint.data.base import Examples
from fedjoint.data.config import DataConfig
from fedjoint.data.dataset import Dataset
from fedjoint.data.files import find, read_text
from fedjoint.data.labels import read_labels
from fedjoint.errors import UserError, choose


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
        found = [_number(cell) for cell in self.columns[name]]
        return np.array([np.nan if number is None else number for number in found], np.float32)


def load(config: DataConfig) -> Dataset:
    """Load one task per column of ``data.targets``; ``x`` is ``[n, features]`` float32.

    Several files are joined; they need the same columns. Targets are used as they are: scale
    regression targets to about unit size beforehand.

    Raises:
        UserError: a file or a column is missing, a row is malformed, a feature is no finite
            number, or a label is wrong (see :func:`fedjoint.data.labels.read_labels`).
    """
    table = read(config)
    x = np.stack([_numbers(table, name) for name in feature_columns(table, config)], 1)
    labels = {
        name: read_labels(
            name, kind, table.columns[name], table.places.__getitem__, config.outputs.get(name)
        )
        for name, kind in config.targets.items()
    }
    owner = config.owner_column
    skewed_by_column = config.by in table.columns and config.by not in config.targets
    return Dataset(
        tuple(task for task, _ in labels.values()),
        Examples(torch.from_numpy(x), {name: y for name, (_, y) in labels.items()}),
        owner=np.array(table.columns[owner]) if owner else None,
        strata=np.unique(table.columns[config.by], return_inverse=True)[1]
        if skewed_by_column and config.by
        else None,
    )


def read(config: DataConfig) -> Table:
    """Read and join the files of ``data.path``, which have the columns that ``config`` names.

    Raises:
        UserError: a file or a column is missing, or a row is malformed or names no client.
    """
    table = _join([read_table(path, config.encoding) for path in find(config.path or "")])
    for name in [*config.targets, *config.features, config.client_column, config.by]:
        if name is not None and name not in table.columns:
            raise choose("column", name, table.columns)
    for row, owner in enumerate(table.columns.get(config.owner_column or "", [])):
        if not owner.strip():
            raise UserError(
                f"{table.places[row]}: client_column {config.owner_column!r} is empty; name the "
                "row's client or leave the row out"
            )
    return table


def feature_columns(table: Table, config: DataConfig) -> list[str]:
    """Return the columns that are features: those named, or every other one of numbers.

    Raises:
        UserError: none is named, and no other column's first cell that is not empty is a number.
    """
    return config.features or _numeric(table, {*config.targets, config.client_column})


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


def _join(tables: Sequence[Table]) -> Table:
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


def _numeric(table: Table, taken: set[str | None]) -> list[str]:
    """Return the columns that are not ``taken`` and whose first filled cell is a number."""
    begins = {
        name: next((cell for cell in cells if cell.strip()), "")
        for name, cells in table.columns.items()
        if name not in taken
    }
    names = [name for name, first in begins.items() if _number(first) is not None]
    if not names:
        raise UserError(f"{table.places[0]}: no column of numbers is left; set data.features")
    return names


def _numbers(table: Table, name: str) -> np.ndarray:
    x = table.numbers(name)
    wrong = ~np.isfinite(x)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{table.places[row]}: feature {name!r} is {table.columns[name][row]!r}, not a finite "
            "number; fix the row or leave the column out of data.features"
        )
    return x


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
