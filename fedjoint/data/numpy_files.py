"""Files of NumPy: their headers are read first, and what does not fit is never unpacked."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy

from fedjoint._util.memory import check_fits
from fedjoint.errors import UserError, choose

_NUMBERS, _TEXT = "buif", "SU"  # NumPy's kinds of dtype
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_SUFFIX = ".npy"
_COPIES = 2  # of an array, as it is read


def read_npy(path: Path) -> np.ndarray:
    """Read one array of numbers.

    Raises:
        UserError: the file is no such array, or holds more than there is memory for.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size, str(path), _NUMBERS)
    except UserError:
        raise
    except Exception:  # a damaged file may raise anything
        raise UserError(f"{path}: not an array of numbers in NumPy's format") from None


def read_npz(
    path: Path, names: Iterable[str], texts: Collection[str | None] = ()
) -> dict[str, np.ndarray]:
    """Read arrays by name.

    Args:
        path: the file.
        names: of the arrays.
        texts: names of those that may be of text; others are of numbers.

    Raises:
        UserError: the file is no archive of arrays, lacks one, or holds more than there is memory
            for.
    """
    try:
        with ZipFile(path) as archive:
            sizes = {each.filename: each.file_size for each in archive.infolist()}
            found = {}
            for name in names:
                member = f"{name}{_SUFFIX}"
                if member not in sizes:
                    raise choose(
                        f"array in {path}", name, [each.removesuffix(_SUFFIX) for each in sizes]
                    )
                with archive.open(member) as file:
                    kinds = _NUMBERS + _TEXT if name in texts else _NUMBERS
                    found[name] = _read(file, sizes[member], f"{path}: {name!r}", kinds)
            return found
    except UserError:
        raise
    except Exception:  # a damaged file may raise anything
        raise UserError(f"{path}: not arrays of numbers in NumPy's .npz format") from None


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in a .npz file.

    Raises:
        UserError: the file is no archive.
    """
    try:
        with ZipFile(path) as archive:
            return [name.removesuffix(_SUFFIX) for name in archive.namelist()]
    except Exception:  # a damaged file may raise anything
        raise UserError(f"{path}: not arrays of numbers in NumPy's .npz format") from None


def _read(file: IO[bytes], size: int, what: str, kinds: str) -> np.ndarray:
    """Read an array of one of NumPy's ``kinds``, of a file that has ``size`` bytes or claims so."""
    shape, rows_last, dtype = _HEADERS[npy.read_magic(file)](file)
    if dtype.kind not in kinds or min(shape, default=0) < 0:
        raise ValueError("not an array of such numbers")
    wanted = math.prod(shape) * dtype.itemsize
    check_fits(f"{what}, of shape {shape}", _COPIES * wanted, "give fewer rows")
    if wanted > size:
        raise ValueError("fewer numbers than it says")
    array = np.frombuffer(bytearray(file.read(wanted)), dtype)
    return array.reshape(shape, order="F" if rows_last else "C")
