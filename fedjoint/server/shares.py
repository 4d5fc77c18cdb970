"""Bounds on what one client, and one node, weighs among all."""

from __future__ import annotations

import numpy as np

_FEWEST = 3  # of two, neither can be told to be too heavy


def limited(weights: np.ndarray, most: float) -> np.ndarray:
    """Return ``[n]`` weights of which none is more than ``most`` of their sum.

    Those that are more are lowered to one bound; where ``most`` is less than an even share, all
    are alike. The others stay as they are. Fewer than three weights stay, too.

    Args:
        weights: ``[n]`` float64, not negative.
        most: above 0, up to 1.
    """
    if len(weights) < _FEWEST or weights.max() <= most * weights.sum():
        return weights
    descending = np.sort(weights)[::-1]
    rest = descending.sum() - descending.cumsum()
    # With the k heaviest at the bound b: b = most * (k * b + rest).
    heavy = np.arange(1, len(weights) + 1)
    room = 1 - most * heavy
    bounds = np.where(room > 0, most * rest / np.where(room > 0, room, 1), 0.0)
    fits = (bounds > 0) & (bounds <= descending) & (np.append(descending[1:], 0) <= bounds)
    bound = bounds[fits.argmax()] if fits.any() else descending[descending > 0].min()
    return np.minimum(weights, bound)


def limited_together(weights: np.ndarray, owners: np.ndarray, most: float) -> np.ndarray:
    """Return weights with which no owner has more than ``most`` of all, see :func:`limited`.

    Args:
        weights: ``[n]`` float64.
        owners: ``[n]`` int64, the owner of each.
        most: above 0, up to 1.
    """
    _, place = np.unique(owners, return_inverse=True)
    sums = np.bincount(place, weights)
    factors = limited(sums, most) / np.where(sums > 0, sums, 1)
    return weights * factors[place] if (factors[sums > 0] < 1).any() else weights
