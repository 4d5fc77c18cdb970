"""The geometric median of the updates."""

import torch
from torch import Tensor

from fedjoint.options import Count, Share
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._cosines import squared_distances


class GeometricMedian(JointStrategy):
    """Robust federated aggregation: ``step = argmin_z sum_i weights_i * |z - update_i|``.

    Smoothed Weiszfeld iterations ``z <- sum_i b_i * update_i / sum_i b_i`` with
    ``b_i = weights_i / max(smoothing * scale, |z - update_i|)``. The radius of an update is that
    of the ball around it with more than half of the weight; in the first iteration it stands
    for the distance, and scale is the smallest one. The iterations run on the coefficients of
    z, in the inner products of the updates.

    Breakdown point: clients with less than half of the weight, alpha, may send anything; the
    distance of the step from a point near all other updates, at most r from each, is then at
    most ``2 * (1 - alpha) / (1 - 2 * alpha) * r``. Neither first iteration nor scale follow
    them further.

    Args:
        iterations: at most so many; they stop early once the coefficients settle.
        smoothing: distances below this share of the scale count as equal.

    Paper: Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE
    Transactions on Signal Processing 2022, https://arxiv.org/abs/1912.13445
    """

    omits = "secure aggregation"
    robust = True

    def __init__(self, iterations: Count = 200, smoothing: Share = 1e-6) -> None:
        super().__init__()
        self.iterations = iterations
        self.smoothing = smoothing

    def merge(self, updates: Updates) -> Tensor:
        gram, weights = updates.gram, updates.weights.double()
        square = gram.diagonal()
        away = _radii(gram, weights)
        # The least float keeps a round in which nothing moved from dividing by zero.
        least = self.smoothing * away.min() + torch.finfo(torch.float64).tiny
        c = torch.zeros_like(weights)
        for _ in range(self.iterations):
            last, c = c, weights / away.clamp(min=least)
            c = c / c.sum()
            if (c - last).abs().max() < 1e-12:
                break
            with_z = gram @ c
            away = (c @ with_z - 2 * with_z + square).clamp(min=0).sqrt()
        return updates.combine(c)


def _radii(gram: Tensor, weights: Tensor) -> Tensor:
    """Return ``[rows]``, the radius around each update within which more than half weighs."""
    near, order = squared_distances(gram).sqrt().sort(dim=1)
    enough = weights[order].cumsum(1) > weights.sum() / 2
    return near.gather(1, enough.int().argmax(1, keepdim=True)).squeeze(1)
