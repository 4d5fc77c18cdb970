"""Whose an example is, by a column of names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from fedjoint.data.labels import blanked, refuse_look_alikes
from fedjoint.errors import UserError


def read_owners(
    column: str,
    cells: Sequence[str],
    where: Callable[[int], str],
    missing: Collection[str] | None,
) -> np.ndarray:
    """Return ``[n]`` names of clients.

    Args:
        column: the column's name.
        cells: ``n`` names.
        where: names the file and line of a cell in errors.
        missing: see :func:`fedjoint.data.labels.read_labels`.

    Raises:
        UserError: a name is missing, or two look alike.
    """
    owners = blanked(column, cells, where, missing)
    if "" in owners:
        raise UserError(
            f"{where(owners.index(''))}: client_column {column!r} is empty; name the row's client "
            "or leave the row out"
        )
    refuse_look_alikes(f"client_column {column!r}", set(owners))
    return np.array(owners)
