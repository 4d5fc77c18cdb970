"""How much a Parquet file holds once it is unpacked: a few bytes may stand for gigabytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet
from pyarrow.parquet import ParquetFile, RowGroupMetaData

from fedjoint._util.memory import allowed_bytes, check_fits

_CELL = 16  # bytes that a number takes at least, as it is read and as it is used
_SHARE = 8  # of the memory that is taken at once, to measure
_REMEDY = "give fewer rows, or smaller ones"


def check_unpacked(path: Path) -> None:
    """Refuse a file that holds more than there is memory for, before it is read.

    Numbers are counted by the footer. Where texts and bytes may repeat often enough to be too many,
    they are read a few rows at a time, and measured.

    Raises:
        UserError: it does not fit.
    """
    file = ParquetFile(path)
    about = file.metadata
    groups = [about.row_group(at) for at in range(about.num_row_groups)]
    rows = max(about.num_rows, sum(group.num_rows for group in groups))
    values = sum(group.column(at).num_values for group in groups for at in range(about.num_columns))
    cells = max(values, rows * about.num_columns)
    check_fits(f"{path}: {rows} rows of {cells} values", _CELL * float(cells), _REMEDY)
    texts = [at for at in range(about.num_columns) if _is_text(about.schema.column(at))]
    if sum(_most(group, at) for group in groups for at in texts) > allowed_bytes():
        _measure(path, file, groups, texts)


def _is_text(leaf: pyarrow.parquet.ColumnSchema) -> bool:
    return leaf.physical_type == "BYTE_ARRAY"


def _most(group: RowGroupMetaData, column: int) -> int:
    """Return the most bytes that a column's texts may have: each value is in the file once."""
    return group.column(column).num_values * group.column(column).total_uncompressed_size


def _measure(
    path: Path, file: ParquetFile, groups: Sequence[RowGroupMetaData], texts: Sequence[int]
) -> None:
    size = 0
    for number, group in enumerate(groups):
        for at in texts:
            column = group.column(at)
            few = max(1, allowed_bytes() // _SHARE // max(1, column.total_uncompressed_size))
            for batch in file.iter_batches(few, [number], [column.path_in_schema]):
                size += batch.nbytes
                check_fits(f"{path}: its texts and bytes", float(size), _REMEDY)
