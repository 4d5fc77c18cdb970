"""Finding and reading the files of ``data.source.options.path``."""

import codecs
from collections.abc import Sequence
from pathlib import Path

from fedjoint.errors import UserError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def find(path: str | Sequence[str]) -> list[Path]:
    """Return the files that ``path`` names: files, or folders for the files in them, sorted.

    Raises:
        UserError: a path does not exist, or a folder has no files.
    """
    found: list[Path] = []
    for place in map(Path, [path] if isinstance(path, str) else path):
        if place.is_dir():
            inside = sorted(f for f in place.iterdir() if f.is_file() and f.name[0] != ".")
            if not inside:
                raise UserError(f"{place}: the folder has no files; fix data.source.options.path")
            found += inside
        elif place.exists():
            found.append(place)
        else:
            raise UserError(f"{place}: no such file or folder; fix data.source.options.path")
    return found


def read_text(path: Path, encoding: str | None) -> str:
    """Read a text file; without ``encoding``, as UTF-8 or, where that fails, as Latin-1.

    A file that begins with the byte-order mark of UTF-16 is read as that.

    Raises:
        UserError: the file cannot be read, is not in ``encoding`` or holds a NUL.
    """
    data = read_bytes(path)
    marked = encoding is None and data.startswith(_UTF_16)
    text = _decode(path, data, "utf-16" if marked else encoding)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}:{line}: holds a NUL; save the file as UTF-8 text")
    return text


def _decode(path: Path, data: bytes, encoding: str | None) -> str:
    try:
        return data.decode(encoding or "utf-8-sig")
    except LookupError:
        raise UserError(f"data.encoding {encoding!r} is unknown; try utf-8 or latin-1") from None
    except UnicodeDecodeError as error:
        if encoding is None:
            return data.decode("latin-1")
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not {encoding}; fix the file, or data.encoding") from None


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check data.source.options.path") from None
