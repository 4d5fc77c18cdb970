"""Numbers and lists of them, as a column of Parquet has them -> arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjoint._util.memory import check_fits
from fedjoint.errors import UserError


def stacked(
    values: Sequence[Any], where: str, fill: float | None = None, hint: str = "give such lists"
) -> np.ndarray:
    """Return numbers, or lists of them, nested or not, as one array ``[n, ...]``.

    Args:
        values: ``n`` of them.
        where: the column, for errors.
        fill: fills up lists that are shorter than the longest; None: all are of one length.
        hint: what to do where one does not fit.

    Raises:
        UserError: one is no number and no list of numbers, or they differ in shape.
    """
    arrays = [_array(value, f"{where} of row {row}", hint) for row, value in enumerate(values)]
    filled = [array for array in arrays if array.size]
    if not filled:
        raise UserError(f"{where} has lists without numbers; {hint}")
    shape, dtype = filled[0].shape, np.result_type(*{array.dtype for array in filled})
    ragged = fill is not None and bool(shape)
    for row, array in enumerate(arrays):
        fits = array.shape == shape
        if ragged:
            fits = not array.size or array.shape[1:] == shape[1:]
        if not fits or (array.size and (array.dtype == np.uint8) != (dtype == np.uint8)):
            raise UserError(
                f"{where} of row {row} is no array of numbers of shape {shape}, as in row 0; {hint}"
            )
    if not ragged:
        return np.stack(arrays)
    whole = (len(arrays), max(map(len, filled)), *shape[1:])
    check_fits(f"{where}: lists of up to {whole[1]}", 8.0 * math.prod(whole), "shorten them")
    found = np.full(whole, fill, dtype)
    for row, array in enumerate(arrays):
        if array.size:
            found[row, : len(array)] = array
    return found


def _array(value: Any, where: str, hint: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # a list of lists of unequal length
        array = np.zeros(0, object)
    if array.dtype.kind not in "buif":
        raise UserError(f"{where} is no array of numbers; {hint}")
    return array
