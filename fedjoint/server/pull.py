"""Weights of clients with which every task pulls alike, whatever tasks they have together."""

from __future__ import annotations

import numpy as np

_LEAST = 0.01  # of an even weight: what every client has
_TOLERANCE = 1e-6  # of a task's pull
_STEPS = 100


def equal_pull(tasks: np.ndarray) -> np.ndarray:
    """Return ``[clients]`` weights, above zero and not normalised.

    The pull of a task is the total weight of the clients that train it: a client adds up the
    losses of its tasks, so each of them moves its update as if it were alone. All tasks get the
    same pull, one, from many clients rather than few: of such weights, these have the least sum,
    over tasks and their clients, of squares, which is the variance of the merged gradients. A
    weight is the mean of the prices of a client's tasks, one price a task. With one task a
    client, that is one over the number of the task's clients.

    No weight falls below a hundredth of an even one. That is what clients are left with whose
    task has others that all have a rarer one, too: giving the rarer task its pull gives the
    other its whole. Memberships may rule out equal pulls altogether (two clients, with tasks a
    and b, and a and c): then they are as near as can be, by least squares.

    Args:
        tasks: ``[clients, tasks]`` bool.
    """
    member = tasks[:, tasks.any(0)].astype(float)
    counts, own = member.sum(0), np.maximum(member.sum(1), 1)
    least = _LEAST * len(counts) / max(1.0, counts.sum())

    def weights(prices: np.ndarray) -> np.ndarray:
        return np.maximum(member @ prices / own, least)

    def dual(prices: np.ndarray) -> float:
        w = weights(prices)
        gain = w @ (member @ prices) - own @ w**2 / 2
        return gain - prices.sum() + _TOLERANCE * prices @ prices / 2

    # Newton's method on the dual problem, convex and in the few tasks rather than the clients.
    prices = 1 / counts
    for _ in range(_STEPS):
        slope = weights(prices) @ member - 1 + _TOLERANCE * prices
        if np.abs(slope).max(initial=0) < _TOLERANCE:
            break
        free = member @ prices / own > least
        curvature = (member[free] / own[free, None]).T @ member[free]
        move = np.linalg.solve(curvature + _TOLERANCE * np.eye(len(counts)), slope)
        length, before = 1.0, dual(prices)
        while dual(prices - length * move) > before - length * slope @ move / 4 and length > 1e-9:
            length /= 2
        prices = prices - length * move
    return weights(prices)
