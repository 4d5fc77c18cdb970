"""Krum, Multi-Krum and Bulyan: keep the updates that have close neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates
from strategies.columns import by_columns, median
from strategies.options import whole


def enough(rule: str, rows: int, malicious: int, needed: int) -> None:
    """Raise a UserError if a round has too few updates for ``malicious`` liars among them."""
    if malicious and rows < needed:
        raise UserError(
            f"{rule} with malicious = {malicious} needs {needed} clients a round, got {rows}: "
            "lower malicious or sample more clients"
        )


def krum_scores(gram: Tensor, malicious: int) -> Tensor:
    """Return ``[rows]``, the summed squared distances of each update to its nearest others.

    Args:
        gram: ``[rows, rows]`` inner products of the updates.
        malicious: f; the nearest ``rows - f - 2`` others count. Without any, a round may be so
            small that this leaves nobody; then the nearest one counts.

    Raises:
        UserError: f is above zero, and there are fewer than ``2 * f + 3`` updates.
    """
    enough("krum", len(gram), malicious, 2 * malicious + 3)
    square = gram.diagonal()
    distance = (square[:, None] + square - 2 * gram).clamp(min=0).fill_diagonal_(torch.inf)
    nearest = min(max(1, len(gram) - malicious - 2), len(gram) - 1)
    return distance.sort().values[:, :nearest].sum(1)


class MultiKrum(JointStrategy):
    """The weighted mean of the ``select`` updates with the lowest :func:`krum_scores`.

    Breakdown point: ``malicious`` clients, which may send anything. Every update that is kept is
    then no further from one of the others' than ``sqrt(rows - malicious - 2)`` times the
    greatest distance between those.

    Args:
        malicious: number f of clients that may send anything; if any, a round needs
            ``2 * f + 3`` clients and ``select + f``.
        select: number of updates to keep; the paper's m.

    Raises:
        UserError: an option is out of range, or a round has too few updates.

    Paper: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent", NeurIPS 2017, https://arxiv.org/abs/1703.02757
    """

    def __init__(self, malicious: int = 0, select: int = 5) -> None:
        super().__init__()
        self.malicious = whole("malicious", malicious, least=0)
        self.select = whole("select", select, least=1)

    def merge(self, updates: Updates) -> Tensor:
        rule = f"multikrum (select = {self.select})"
        enough(rule, len(updates), self.malicious, self.select + self.malicious)
        best = krum_scores(updates.gram, self.malicious).argsort(stable=True)[: self.select]
        kept = torch.zeros_like(updates.weights)
        kept[best] = updates.weights[best]
        return updates.combine(kept / kept.sum())


class Krum(MultiKrum):
    """The one update with the lowest :func:`krum_scores`; weights play no part.

    Breakdown point: as :class:`MultiKrum`.

    Args:
        malicious: number f of clients that may send anything; if any, a round needs
            ``2 * f + 3`` clients.

    Raises:
        UserError: an option is out of range, or a round has too few updates.

    Paper: as :class:`MultiKrum`.
    """

    def __init__(self, malicious: int = 0) -> None:
        super().__init__(malicious, select=1)


class Bulyan(JointStrategy):
    """A mean around the median of the updates that Krum trusts, coordinate by coordinate.

    Of the ``theta = rows - 2 * f`` updates with the lowest :func:`krum_scores`, ``step[p]`` is
    the mean of the ``theta - 2 * f`` values nearest to their median. Each client counts once.
    The scores are computed once, as in Flower, and not anew after every choice.

    Breakdown point: ``malicious`` clients, which may send anything. ``step[p]`` is then no
    further from what the others sent than those values are from one another.

    Args:
        malicious: number f of clients that may send anything; if any, a round needs
            ``4 * f + 3`` clients. With none, the default, the step is the plain mean.

    Raises:
        UserError: an option is out of range, or a round has too few updates.

    Paper: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning
    in Byzantium", ICML 2018, https://arxiv.org/abs/1802.07927
    """

    omits = "scores computed anew after every choice"

    def __init__(self, malicious: int = 0) -> None:
        super().__init__()
        self.malicious = whole("malicious", malicious, least=0)

    def merge(self, updates: Updates) -> Tensor:
        enough("bulyan", len(updates), self.malicious, 4 * self.malicious + 3)
        theta = len(updates) - 2 * self.malicious
        near = theta - 2 * self.malicious
        trusted = krum_scores(updates.gram, self.malicious).argsort(stable=True)[:theta]

        def statistic(values: Tensor) -> Tensor:
            # Among sorted values, the nearest to the median are neighbours: try each window.
            middle = median(values)
            low, high = values[:, : theta - near + 1], values[:, near - 1 :]
            farthest = torch.maximum(middle[:, None] - low, high - middle[:, None])
            first = farthest.argmin(1, keepdim=True)
            return values.gather(1, first + torch.arange(near)).mean(1)

        return by_columns(updates.matrix, statistic, trusted)
