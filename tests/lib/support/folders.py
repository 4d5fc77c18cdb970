"""Folders, compared and changed."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

#: Changes a file in place.
Change = Callable[[Path], object]


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file below a folder, by its path there."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def byte_changes(data: bytes, flips: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield names and what becomes of a file: gone (None), empty, cut, a byte flipped."""
    yield "deleted", None
    yield "emptied", b""
    yield "no file of ours", b"no file of ours"
    for part in (1, len(data) // 2, len(data) - 1):
        yield f"cut after {part} bytes", data[:part]
    for number in range(flips):
        at = number * (len(data) - 1) // max(1, flips - 1)
        for bit in (0x01, 0x20):
            flipped = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            yield f"byte {at} ^ {bit}", flipped


def line_changes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield names and what becomes of a file's lines: dropped, doubled, exchanged."""
    lines = data.splitlines(keepends=True)
    for at in range(len(lines)):
        yield f"line {at} dropped", b"".join(lines[:at] + lines[at + 1 :])
        yield f"line {at} doubled", b"".join(lines[: at + 1] + lines[at:])
    for at in range(len(lines) - 1):
        swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
        yield f"lines {at} and {at + 1} exchanged", b"".join(swapped)


def row_changes(database: Path) -> Iterator[tuple[str, str]]:
    """Yield names and statements: each row of a database deleted."""
    with closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE sql > ''")]
        for table in tables:
            for (row,) in db.execute(f"SELECT rowid FROM {table}"):
                yield f"{table}: row {row} deleted", f"DELETE FROM {table} WHERE rowid = {row}"


def execute(database: Path, statement: str) -> None:
    """Change a database."""
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute(statement)


def put(path: Path, data: bytes | None) -> None:
    """Write a file, or delete it."""
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
