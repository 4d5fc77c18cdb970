"""Types and bounds of what another machine sends: texts, numbers and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from fedjoint._util.lengths import squared_lengths
from fedjoint.errors import UserError

#: Most that a node may say to have counted: sums over all clients stay whole 64-bit numbers.
MOST = 2**40

#: A name: of a node, a device, a task.
Name = Annotated[str, Field(max_length=200)]
#: What a person is to read: why something failed. A UserError of a node's has no more.
Line = Annotated[str, Field(max_length=4000)]
#: A whole number that a message may hold.
Number = Annotated[int, Field(ge=0, le=MOST)]
#: How long something took.
Seconds = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]


def shaped(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], kinds: str
) -> np.ndarray:
    """Return an array that has ``shape`` and one of NumPy's ``kinds`` of dtype.

    Raises:
        UserError: there is none.
    """
    if name not in arrays:
        raise UserError(f"the reply lacks {name!r}")
    found = arrays[name]
    if found.shape != shape:
        raise UserError(f"{name!r} has shape {found.shape}, expected {shape}")
    if found.dtype.kind not in kinds:
        raise UserError(f"{name!r} is of type {found.dtype}")
    return found


def counts(
    arrays: Mapping[str, np.ndarray], name: str, count: int, most: np.ndarray | int = MOST
) -> np.ndarray:
    """Return ``[count]`` whole numbers from 0 to ``most``, as int64.

    Args:
        arrays: have them, under ``name``.
        name: of the array.
        count: how many there are.
        most: the greatest, of all or ``[count]`` of each.

    Raises:
        UserError: there are none.
    """
    found = shaped(arrays, name, (count,), "iu")
    if (found < 0).any():
        raise UserError(f"{name!r} is negative")
    above = found > most
    if above.any():
        limit = np.broadcast_to(most, (count,))[above][0]
        raise UserError(f"{name!r} is above {limit}, the most that it can be")
    return found.astype(np.int64)


def finite_rows(what: str, rows: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return ``rows`` ``[n, P]`` if they are float32, and finite where they are used.

    Args:
        what: a row is, for the error.
        rows: the rows.
        used: ``[n]`` bool.

    Raises:
        UserError: they are not.
    """
    if rows.dtype != np.float32:
        raise UserError(f"{what} is {rows.dtype}, not float32")
    if not np.isfinite(squared_lengths(rows)[used]).all():
        raise UserError(f"{what} is not finite")
    return rows
