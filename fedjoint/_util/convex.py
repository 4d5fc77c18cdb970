"""Minimise a convex function over weights: within bounds, with a weighted sum of one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]


def project(
    point: np.ndarray, low: np.ndarray, high: np.ndarray, each: np.ndarray | float = 1.0
) -> np.ndarray:
    """Return the nearest x to ``point`` ``[n]`` with low <= x <= high and sum(each * x) = 1.

    It is ``clip(point - shift * each, low, high)`` for one number shift. The bounds must allow
    a sum of one; where they leave room for no other and rounding keeps them from it, a bound is
    the result.
    """

    def beyond(shift: float) -> float:
        return (each * np.clip(point - shift * each, low, high)).sum() - 1

    if (each * high).sum() <= 1:
        return high
    if (each * low).sum() >= 1:
        return low
    least, most = ((point - high) / each).min() - 1, ((point - low) / each).max() + 1
    shift = brentq(beyond, least, most, xtol=1e-15, maxiter=1000)
    return np.clip(point - shift * each, low, high)


def minimise(
    function: Function,
    start: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    each: np.ndarray | float = 1.0,
    iterations: int = 2000,
    tolerance: float = 1e-10,
) -> np.ndarray:
    """Minimise ``function`` by accelerated projected gradient steps, restarted when it rises.

    Args:
        function: ``x [n] -> (value, gradient [n])``, convex and smooth.
        start: ``[n]``, where to begin, within the bounds.
        low: ``[n]`` lower bounds.
        high: ``[n]`` upper bounds.
        each: ``[n]`` or a number, above zero: ``sum(each * x) = 1``.
        iterations: at most so many steps.
        tolerance: stop once a step moves no weight by more than this.

    Paper: Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", 2009,
    https://doi.org/10.1137/080716542; restarts: O'Donoghue and Candes, 2015,
    https://arxiv.org/abs/1204.3982
    """
    x = ahead = start
    momentum, length = 1.0, 1.0
    lowest, idle = np.inf, 0
    for _ in range(iterations):
        value, gradient = function(ahead)
        length *= 1.2  # let the step grow back, then halve it until the bound below holds
        while True:
            new = project(ahead - length * gradient, low, high, each)
            move = new - ahead
            bound = value + gradient @ move + move @ move / (2 * length)
            reached = function(new)[0]
            if reached <= bound + 1e-15 * abs(value) or length < 1e-12:
                break
            length /= 2
        idle = 0 if reached < lowest - 1e-15 * abs(reached) else idle + 1
        lowest = min(lowest, reached)
        still = np.abs(new - x).max() <= tolerance and np.abs(move).max() <= tolerance
        if still or idle >= 30:  # where the function is flat, momentum has no end
            return new
        if (ahead - new) @ (new - x) > 0:  # the momentum points uphill
            momentum, ahead, x = 1.0, new, new
            continue
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, x = new + (momentum - 1) / following * (new - x), new
        momentum = following
    return x
