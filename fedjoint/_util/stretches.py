"""Where rows in a row are alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np


def stretches(rows: np.ndarray) -> Iterator[slice]:
    """Yield where each run of equal ``rows`` ``[n, ...]`` is."""
    if len(rows):
        differs = (rows[1:] != rows[:-1]).any(tuple(range(1, rows.ndim)))
        bounds = [0, *(np.flatnonzero(differs) + 1).tolist(), len(rows)]
        yield from itertools.starmap(slice, itertools.pairwise(bounds))
