"""The geometric median of the updates."""

import torch
from torch import Tensor

from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates
from strategies.options import number, whole


class GeometricMedian(JointStrategy):
    """Robust federated aggregation: ``step = argmin_z sum_i weights_i * |z - update_i|``.

    Smoothed Weiszfeld iterations ``z <- sum_i b_i * update_i / sum_i b_i`` with
    ``b_i = weights_i / max(smoothing * length, |z - update_i|)``, from the weighted mean; length
    is the root mean square length of the updates, ``[P]`` each. They run on the coefficients of
    z, in the inner products of the updates.

    Args:
        iterations: at most so many; they stop early once the coefficients settle.
        smoothing: distances below this share of the updates' length count as equal.

    Raises:
        UserError: an option is out of range.

    Paper: Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE
    Transactions on Signal Processing 2022, https://arxiv.org/abs/1912.13445
    """

    omits = "secure aggregation"

    def __init__(self, iterations: int = 200, smoothing: float = 1e-6) -> None:
        super().__init__()
        self.iterations = whole("iterations", iterations, least=1)
        self.smoothing = number("smoothing", smoothing, above=0)

    def merge(self, updates: Updates) -> Tensor:
        gram, weights = updates.gram, updates.weights.double()
        square = gram.diagonal()
        # The least float keeps a round in which nothing moved from dividing by zero.
        least = self.smoothing * square.mean().sqrt() + torch.finfo(torch.float64).tiny
        c = weights
        for _ in range(self.iterations):
            with_z = gram @ c
            away = (c @ with_z - 2 * with_z + square).clamp(min=0).sqrt()
            last, c = c, weights / away.clamp(min=least)
            c = c / c.sum()
            if (c - last).abs().max() < 1e-12:
                break
        return updates.combine(c)
