"""How long rows of numbers are."""

from __future__ import annotations

import numpy as np

_CHUNK = 1 << 14  # numbers that are added up in float32: what rounding loses stays small
_LEAST, _MOST = 1e-20, 1e30  # squared lengths that float32 can tell


def squared_lengths(rows: np.ndarray) -> np.ndarray:
    """Return ``[n]`` float64, the squared lengths of rows ``[n, P]``, to about a millionth.

    Rows of float32 are converted to float64 only where their squares are beyond float32; that
    takes several times as long.
    """
    if rows.dtype != np.float32:
        return _exactly(rows)
    squares = np.zeros(len(rows))
    for start in range(0, rows.shape[1], _CHUNK):
        chunk = rows[:, start : start + _CHUNK]
        squares += np.einsum("ij,ij->i", chunk, chunk)
    if (extreme := ~((squares > _LEAST) & (squares < _MOST))).any():  # NaN is, too
        squares[extreme] = _exactly(rows[extreme])
    return squares


def _exactly(rows: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
