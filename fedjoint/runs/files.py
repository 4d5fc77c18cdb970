"""Files that are either there in full or not at all, one by one and in sets."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedjoint._util.memory import allowed_bytes
from fedjoint._util.reading import read_regular
from fedjoint.errors import UserError


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``path`` so that a crash at any instant leaves the old file or the new.

    Args:
        path: the file.
        data: its new content.
        durable: hold also for a loss of power, which takes milliseconds.

    Raises:
        UserError: the folder is missing, full or not writable.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; name a file")
    part = _beside(path, "part")
    with writing(path):
        try:
            _write(part, data, 0o666, durable)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        if durable:
            _sync(path.parent)


def write_files(
    folder: Path,
    contents: Mapping[str, bytes | None],
    *,
    private: Collection[str] = (),
) -> None:
    """Write files that belong together: all of them, or none, and the old ones stay.

    Where it fails, say on a full disk, nothing has changed. A crash in the very instant in which
    several new files take their places may leave some of them beside some old ones: whoever reads
    the set has to notice that, by a checksum of the others in one of them.

    Args:
        folder: where they go; made where it is not there.
        contents: name, which may have folders in it -> content; None: there is to be no such file.
        private: names of those that their owner alone may read.

    Raises:
        UserError: the folder cannot be made, is full or not writable.
    """
    with writing(folder), ExitStack() as undo:
        parts = {}
        for name, data in contents.items():
            if data is not None:
                path = folder / name
                _make_folder(path.parent, undo)
                parts[name] = part = _beside(path, "part")
                undo.callback(part.unlink, missing_ok=True)
                _write(part, data, 0o600 if name in private else 0o666, durable=True)
        old = []
        for name in contents:
            path = folder / name
            if path.exists():
                old.append(_set_aside(path, undo))
            if name in parts:
                parts[name].replace(path)
                undo.callback(path.unlink, missing_ok=True)
        for parent in {(folder / name).parent for name in parts}:
            _sync(parent)
        undo.pop_all()
    for path in old:
        with suppress(OSError):  # the new files are there
            path.unlink()


@contextmanager
def drafted(folder: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder to write into; in the end all goes to ``folder``, as one set.

    Args:
        folder: made where it is not there.
        names: files of the set that may be in ``folder`` from before, and are not to be there
            unless they are written anew.

    Raises:
        UserError: there is no room, or ``folder`` is not writable.
    """
    with writing(folder), TemporaryDirectory() as draft:
        yield Path(draft)
        contents = {path.name: path.read_bytes() for path in Path(draft).iterdir()}
    write_files(folder, {**dict.fromkeys(names), **contents})


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk says into a line about ``path``.

    Raises:
        UserError: an OSError inside.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}; free space there, make it writable, or choose "
            "another folder"
        ) from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of a set.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_regular(path, allowed_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; restore it from a backup") from None


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write ``rows`` as CSV.

    Raises:
        UserError: the folder is missing, full or not writable.
    """
    write_bytes(path, csv_bytes(rows))


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return ``rows`` as CSV, with a column for every name in any of them."""
    text = io.StringIO(newline="")
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _make_folder(path: Path, undo: ExitStack) -> None:
    if not path.is_dir():
        _make_folder(path.parent, undo)
        path.mkdir(exist_ok=True)
        undo.callback(_remove_folder, path)


def _remove_folder(path: Path) -> None:
    with suppress(OSError):  # somebody else has put something into it
        path.rmdir()


def _beside(path: Path, what: str) -> Path:
    # In the same folder, as a rename is atomic only within one file system; the process in the
    # name keeps two writers of one file apart.
    return path.with_name(f".{path.name}.{os.getpid()}.{what}")


def _write(path: Path, data: bytes, mode: int, durable: bool) -> None:
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def _set_aside(path: Path, undo: ExitStack) -> Path:
    if path.is_dir():
        raise IsADirectoryError(0, f"{path.name} is a folder")
    old = _beside(path, "old")
    path.replace(old)
    undo.callback(old.replace, path)
    return old


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
