"""Finding and reading the files of ``data.source.options.path``."""

import codecs
import filecmp
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedjoint._util.memory import allowed_bytes
from fedjoint._util.reading import read_regular
from fedjoint.errors import UserError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SHARE = 4  # a file of data takes no more than such a part of the memory
_SHARE_OF_TEXT = 12  # which is held as bytes, as text and as cells or words
_MARK = "\ufeff"
_WRONG = {
    "\0": "a NUL",
    _MARK: "a byte-order mark amid the text",
    r"\r(?!\n)": "a carriage return that ends no line",
}

#: beginnings of the names of files that a folder of data holds beside them
_NO_DATA = re.compile(r"\.|(readme|licen[cs]e)\b", re.IGNORECASE)

#: first bytes -> what a file is that is no text
_KINDS = {
    b"\x1f\x8b": "packed by gzip: unpack it",
    b"PK\x03\x04": "a ZIP archive, such as .xlsx: save it as text",
    b"PAR1": "Parquet: end its name in .parquet",
    b"SQLite format 3": "an SQLite database: save its table as CSV",
}

#: a path, or several
Paths = str | list[str]


def find(path: str | Sequence[str], option: str = "path", suffix: str = "") -> list[Path]:
    """Return the files that ``path`` names: files, or folders for the files in them, sorted.

    Args:
        path: files and folders; a folder's README and LICENSE are no data.
        option: what they are given as, for errors.
        suffix: of the files that count in a folder, however deep they lie; by default all do that
            lie in it.

    Raises:
        UserError: a path does not exist, or a folder has no files, or deep ones in several folders.
    """
    cure = f"fix data.source.options.{option}"
    found: list[Path] = []
    for place in map(Path, [path] if isinstance(path, str) else path):
        try:
            inside = _inside(place, suffix) if place.is_dir() else None
            there = place.exists()
        except (OSError, ValueError) as error:  # too long a name, no right to look, a NUL
            why = getattr(error, "strerror", None) or error
            raise UserError(f"{str(place)[:80]!r}: {why}; {cure}") from None
        if not there:
            raise UserError(
                f"{place}: no such file or folder; {cure} (or FEDJOINT_DATA, where a scenario "
                "looks there)"
            )
        if inside == []:
            raise UserError(f"{place}: the folder has no {suffix} files; {cure}".replace("  ", " "))
        if len(folders := sorted({str(file.parent) for file in inside or []})) > 1:
            raise UserError(
                f"{place}: {suffix} files in {', '.join(folders[:3])}: of one data set, or of "
                f"several? Name one folder, or list the files; {cure}"
            )
        found += [place] if inside is None else inside
    if not found:
        raise UserError(f"data.source.options.{option} names no file")
    return found


def _inside(folder: Path, suffix: str) -> list[Path]:
    files = folder.rglob(f"*{suffix}") if suffix else folder.iterdir()
    return sorted(file for file in files if file.is_file() and not _NO_DATA.match(file.name))


def refuse_repeats(paths: Iterable[Path]) -> None:
    """Refuse a file that is listed twice, under whatever name, or whose copy is listed.

    Its examples would be in training and test data alike.

    Raises:
        UserError: there is one.
    """
    sizes: dict[int, list[Path]] = {}
    for path in paths:
        same = sizes.setdefault(path.stat().st_size, [])
        for other in same:
            if path.samefile(other):
                what = "is listed twice" if path == other else f"is the same file as {other}"
                raise UserError(f"{path} {what}; list every file once")
            if _equal(path, other):
                raise UserError(f"{path} holds the same as {other}; list one of them")
        same.append(path)


def _equal(path: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(path, other, shallow=False)
    except OSError:  # who reads it says that it cannot be read
        return False


def read_text(path: Path, encoding: str | None) -> str:
    """Read a text file; see :func:`read_guessed`, which says how it was read, too."""
    return read_guessed(path, encoding)[0]


def read_guessed(path: Path, encoding: str | None) -> tuple[str, bool]:
    """Read a text file, and say whether its encoding is a guess.

    Without ``encoding`` it is read as UTF-8 or, where that fails, as Latin-1: a guess. A file that
    begins with the byte-order mark of UTF-16 is read as that.

    Raises:
        UserError: the file cannot be read, is not in ``encoding``, or holds a NUL, a byte-order
            mark amid the text, or a carriage return that ends no line.
    """
    data = read_bytes(path, _SHARE_OF_TEXT)
    for start, what in _KINDS.items():
        if data.startswith(start):
            raise UserError(f"{path}: it is {what}")
    marked = encoding is None and data.startswith(_UTF_16)
    text, guessed = _decode(path, data, "utf-16" if marked else encoding)
    text = text.removeprefix(_MARK)
    for wrong, name in _WRONG.items():
        if amid := re.search(wrong, text):
            line = text.count("\n", 0, amid.start()) + 1
            raise UserError(f"{path}:{line}: holds {name}; save the file as UTF-8 text without it")
    return text, guessed


def _decode(path: Path, data: bytes, encoding: str | None) -> tuple[str, bool]:
    try:
        return data.decode(encoding or "utf-8"), False
    except UnicodeDecodeError as error:
        if encoding is None:
            return data.decode("latin-1"), True
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: not {encoding}; fix the file, or data.source.options.encoding"
        ) from None
    except (LookupError, ValueError):  # unknown, or none of text
        raise UserError(
            f"data.source.options.encoding {encoding!r} is unknown, or reads no such file; try "
            "utf-8 or latin-1"
        ) from None


def read_bytes(path: Path, share: int = _SHARE) -> bytes:
    """Read a file.

    Args:
        path: the file.
        share: which part of the memory it may take: a fourth, and so on.

    Raises:
        UserError: the file cannot be read, or has more.
    """
    try:
        return read_regular(path, allowed_bytes() // share)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check data.source.options.path") from None


def unzipped(path: Path, data: bytes, most: int) -> bytes:
    """Return the first ``most`` bytes of what a gzip file holds.

    Raises:
        UserError: it is damaged.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(most)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path}: damaged gzip file; fetch it again") from None
