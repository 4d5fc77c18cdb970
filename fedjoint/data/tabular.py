"""Tables, read with pyarrow: every column as text, so that nothing is guessed on the way."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from fedjoint._util.memory import check_fits
from fedjoint._util.wording import first_line
from fedjoint.data.files import read_guessed
from fedjoint.data.numbers import number
from fedjoint.data.unpacked import check_unpacked
from fedjoint.errors import UserError

_LARGEST_BLOCK = 2**31 - 1
_COLUMN = 10_000  # bytes that pyarrow takes for one, however few cells it has
_NO_ROWS = "the table has no rows; it needs a header and rows"


@dataclass(frozen=True)
class Table:
    """A table of text cells; an empty cell is a missing value.

    Attributes:
        columns: name -> ``n`` cells.
        rows: ``n``.
        place: row -> its name (file:line) for errors.
        unread: columns whose values are no text and no numbers -> what they are.
        notes: what else a reader should know, such as a guessed encoding.
    """

    columns: dict[str, list[str]]
    rows: int
    place: Callable[[int], str]
    unread: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as ``[n]`` float64, NaN where a cell is no number."""
        return numbers(self.columns[name])


def numbers(cells: Sequence[str]) -> np.ndarray:
    """Return ``[n]`` float64, NaN where a cell is no number as :func:`number` reads it."""
    try:  # all at once: where this fails, a cell is no number, or written with a plus
        values = pyarrow.array(cells, pyarrow.string()).cast(pyarrow.float64()).to_numpy()
        if np.isfinite(values).all():
            return values
    except pyarrow.ArrowInvalid:
        pass
    each = (number(cell) for cell in cells)
    return np.array([np.nan if value is None else value for value in each], np.float64)


def read_table(path: Path, encoding: str | None, delimiter: str | None = None) -> Table:
    """Read one CSV or Parquet file.

    Args:
        path: the file; Parquet by its suffix.
        encoding: of CSV, see :func:`fedjoint.data.files.read_guessed`.
        delimiter: between the cells; None: a tab in .tsv files, else a comma.

    Raises:
        UserError: it cannot be read, is malformed, has no rows, or two columns of one name.
    """
    suffix = path.suffix.lower()
    usual = "\t" if suffix == ".tsv" else ","
    parquet = suffix == ".parquet"
    table = _parquet(path) if parquet else _csv(path, encoding, delimiter or usual)
    if not table.rows:
        raise UserError(f"{path}: {_NO_ROWS}")
    return table


def _csv(path: Path, encoding: str | None, delimiter: str) -> Table:
    text, guessed = read_guessed(path, encoding)
    rows = _rows(path, text, delimiter)
    header = next(rows, (1, []))[1]
    check_fits(f"{path}: {len(header)} columns", _COLUMN * float(len(header)), "give fewer")
    _check_header(path, header)
    if next(rows, None) is None:
        raise UserError(f"{path}: {_NO_ROWS}")
    wrong: list[pyarrow.csv.InvalidRow] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    data = text.encode("utf-8", "surrogatepass")
    try:
        found = pyarrow.csv.read_csv(
            pyarrow.BufferReader(data),
            # One block: a row may be longer than the default one.
            pyarrow.csv.ReadOptions(block_size=min(len(data) + 1, _LARGEST_BLOCK)),
            pyarrow.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pyarrow.string()), strings_can_be_null=False
            ),
        )
    except pyarrow.ArrowException as error:
        _check_rows(path, text, delimiter)  # which says where
        raise UserError(f"{path}: not valid CSV: {first_line(error)}") from None
    if wrong:
        _check_rows(path, text, delimiter)
    names = [name.strip() for name in found.column_names]
    columns = dict(zip(names, (column.to_pylist() for column in found.columns), strict=True))

    def place(row: int) -> str:
        lines = (line for line, _ in _rows(path, text, delimiter))
        return f"{path}:{next(line for at, line in enumerate(lines) if at == row + 1)}"

    notes = (f"{path.name} is not UTF-8 and was read as Latin-1",) if guessed else ()
    return Table(columns, found.num_rows, place, notes=notes)


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of its last line, and the cells, of each row that is not empty.

    pyarrow does not number lines; this is for the header, and for what is wrong.
    """
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None


def _lines(text: str) -> Iterator[str]:
    """Yield the lines, one by one: a copy of a whole table would take four bytes a character."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _check_header(path: Path, header: Sequence[str]) -> None:
    names = [name.strip() for name in header]
    (most, count), *_ = Counter(names).most_common(1) or [("", 0)]
    if count > 1:
        raise UserError(
            f"{path}:1: two columns have the same name, {most!r}; give each column one in the "
            "first line"
        )
    if any(number(name) is not None for name in names):
        name = next(name for name in names if number(name) is not None)
        raise UserError(
            f"{path}:1: the first line has the number {name}; it has to name the columns, with "
            "words"
        )


def _check_rows(path: Path, text: str, delimiter: str) -> None:
    rows = _rows(path, text, delimiter)
    _, header = next(rows, (1, []))
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}:{line}: {len(row)} cells, but the header has {len(header)}; fix the line, "
                "or data.source.options.delimiter"
            )


def _parquet(path: Path) -> Table:
    table = read_parquet(path)
    columns, unread = {}, {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        why = _unreadable(column.type)
        if why:
            unread[name] = why
        else:
            columns[name] = [cell(value, f"{path}: {name!r}") for value in column.to_pylist()]
    return Table(columns, table.num_rows, lambda row: f"{path}: row {row}", unread)


def read_parquet(path: Path) -> pyarrow.Table:
    """Read a Parquet file.

    Raises:
        UserError: it cannot be read, holds more than there is memory for, or two columns have one
            name.
    """
    try:
        check_unpacked(path)
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        raise _no_parquet(path, error) from None
    (most, count), *_ = Counter(table.column_names).most_common(1) or [("", 0)]
    if count > 1:
        raise UserError(f"{path}: two columns have the same name, {most!r}; rename one")
    return table


def parquet_names(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


def _no_parquet(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a Parquet file, or a broken one: {first_line(error)}")


def _unreadable(kind: pyarrow.DataType) -> str | None:
    """Return what a column of such values is, where it has no cells of text or numbers."""
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _unreadable(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kind.value_type
        plain = types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
        return None if plain else f"lists of {inner}"
    readable = (
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_null(kind)
    )
    return None if readable else str(kind).partition("<")[0]


def cell(value: Any, where: str) -> str:
    """Write a value as a cell: nothing for None and NaN, and lists of numbers with spaces between.

    Args:
        value: from a column.
        where: names the column in errors.

    Raises:
        UserError: it is a list of anything but numbers.
    """
    if isinstance(value, list | tuple | np.ndarray):
        return " ".join(_item(item, where) for item in value)
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)


def _item(value: Any, where: str) -> str:
    if not isinstance(value, bool | int | float | np.number | np.bool_):
        has = "a missing value" if value is None else type(value).__name__
        raise UserError(f"{where}: a list holds {has}; lists are of numbers alone")
    return str(float(value))


def join(tables: Sequence[Table]) -> Table:
    """Return the rows of all tables.

    Raises:
        UserError: their columns differ.
    """
    first, names = tables[0], [{*t.columns, *t.unread} for t in tables]
    for table, own in zip(tables, names, strict=True):
        odd = own ^ names[0]
        if odd:
            raise UserError(
                f"{table.place(0)}: column {min(odd)!r} is not in every file, as a comparison "
                f"with {first.place(0)} shows; give files with the same columns"
            )
    ends = list(accumulate(table.rows for table in tables))

    def place(row: int) -> str:
        at = bisect_right(ends, row)
        return tables[at].place(row - ends[at] + tables[at].rows)

    unread = {name: why for table in tables for name, why in table.unread.items()}
    shared = [name for name in first.columns if name not in unread]
    columns = {name: [c for t in tables for c in t.columns[name]] for name in shared}
    return Table(columns, ends[-1], place, unread, tuple(n for t in tables for n in t.notes))
