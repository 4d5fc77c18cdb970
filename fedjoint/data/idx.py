"""Files in the IDX format of MNIST, plain or gzipped."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path

import numpy as np

from fedjoint.data.files import read_bytes, unzipped
from fedjoint.errors import UserError

# type code -> big-endian type
_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file into an array of its shape and type.

    Raises:
        UserError: the file is missing, is no IDX file, or is shorter or longer than it says.
    """
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        data = unzipped(path, data)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES:
        raise UserError(f"{path}: not an IDX file (magic {data[:4].hex()}); check the path")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise UserError(f"{path}: truncated in the header; fetch it again")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    dtype = np.dtype(_TYPES[data[2]])
    expected = start + prod(shape) * dtype.itemsize
    if len(data) != expected:
        word = "truncated" if len(data) < expected else "too long"
        raise UserError(f"{path}: {word}: {len(data)} bytes, its header says {expected}")
    try:
        return np.frombuffer(data, dtype, offset=start).reshape(shape)
    except ValueError:
        raise UserError(
            f"{path}: its header has {data[3]} dimensions of up to {max(shape)}, which is no image "
            "file; fetch it again"
        ) from None
