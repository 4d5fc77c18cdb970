"""One update after the other is turned away from those it conflicts with."""

from __future__ import annotations

import numpy as np

from ._cosines import ROUNDING


def raise_cosines(
    cosines: np.ndarray, targets: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Raise the cosine of every update with every other to a target, one pair at a time.

    Row i starts as update i, of length one. For j in ``order[i]``, if the cosine phi of row i
    with update j is below the target t, ``a_ij * update_j`` is added to row i to make it t, with
    ``a_ij = |row_i| * (t * sqrt(1 - phi^2) / sqrt(1 - t^2) - phi)``. A target of zero is the
    projection onto the plane normal to update j. A row that has cancelled out stays as it is.

    Args:
        cosines: ``[rows, rows]``, of the updates.
        targets: ``[rows, rows]`` target cosines, below one.
        order: ``[rows, rows]`` permutations, one per row.

    Returns:
        ``[rows, rows]``, the rows as combinations of the updates, all of length one; and
        ``[rows, rows]``, the cosines phi met on the way (one on the diagonal), which are the
        targets where a row had cancelled out.
    """
    n = len(cosines)
    combination, met = np.eye(n), targets.copy()
    np.fill_diagonal(met, 1)
    inner, square = cosines.copy(), np.ones(n)  # row i with the updates; with itself
    added = np.ones(n)  # lengths that made up row i
    for j in order.T:  # all rows advance together: row i meets update j[i]
        # What is left of a row that has cancelled out is rounding, with no direction.
        i = np.flatnonzero((j != np.arange(n)) & (square > (ROUNDING * added) ** 2))
        j = j[i]
        own, target = np.sqrt(square[i]), targets[i, j]
        met[i, j] = phi = (inner[i, j] / own).clip(-1, 1)
        low = phi < target
        i, j, phi, own, target = i[low], j[low], phi[low], own[low], target[low]
        # The part of row i normal to update j has length own * sqrt(1 - phi^2).
        a = own * (target * np.sqrt((1 - phi**2) / (1 - target**2)) - phi)
        square[i] += 2 * a * inner[i, j] + a**2
        inner[i] += a[:, None] * cosines[j]
        combination[i, j] += a
        added[i] += np.abs(a)
    return combination, met
