"""Files in the IDX format of MNIST, plain or gzipped."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path

import numpy as np

from fedjoint._util.memory import check_fits
from fedjoint.data.files import read_bytes, unzipped
from fedjoint.errors import UserError

_GZIP = b"\x1f\x8b"
_HEADER = 4 + 4 * 255  # bytes that the longest has
# type code -> big-endian type
_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file into an array of its shape and type.

    Raises:
        UserError: the file is missing, is no IDX file, or is shorter or longer than it says.
    """
    packed = read_bytes(path)
    zipped = packed[:2] == _GZIP
    # What a small file unpacks to has no end that it does not say in its header.
    data = unzipped(path, packed, _HEADER) if zipped else packed
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES:
        raise UserError(f"{path}: not an IDX file (magic {data[:4].hex()}); check the path")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise UserError(f"{path}: truncated in the header; fetch it again")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    dtype = np.dtype(_TYPES[data[2]])
    expected = start + prod(shape) * dtype.itemsize
    if zipped:
        check_fits(f"{path}, images of shape {shape}", expected, "give fewer")
        data = unzipped(path, packed, expected + 1)
    if len(data) != expected:
        word = "truncated" if len(data) < expected else "too long"
        more = " or more" if zipped and len(data) > expected else ""
        raise UserError(f"{path}: {word}: {len(data)} bytes{more}, its header says {expected}")
    try:
        return np.frombuffer(data, dtype, offset=start).reshape(shape)
    except ValueError:
        raise UserError(
            f"{path}: its header has {data[3]} dimensions of up to {max(shape)}, which is no image "
            "file; fetch it again"
        ) from None
