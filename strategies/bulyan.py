"""Bulyan: a trimmed mean of the updates that Krum trusts."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.options import Whole
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._columns import by_columns, middle
from ._krum import enough, krum_scores, liars


class Bulyan(JointStrategy):
    """A mean around the median of the updates that Krum trusts, coordinate by coordinate.

    Of the ``theta = rows - 2 * f`` updates with the lowest :func:`krum_scores`, ``step[p]`` is
    the mean of the ``theta - 2 * f`` values nearest to their median. Each client counts once.
    The scores are computed once, as in Flower, and not anew after every choice.

    Breakdown point: ``malicious`` clients, which may send anything. ``step[p]`` is then no
    further from what the others sent than those values are from one another.

    Args:
        malicious: number f of clients that may send anything; if any, a round needs
            ``4 * f + 3`` clients. None: a fifth of them, as far as that goes. With 0, the step is
            the plain mean.

    Raises:
        UserError: a round has too few updates.

    Paper: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning
    in Byzantium", ICML 2018, https://arxiv.org/abs/1802.07927
    """

    omits = "scores computed anew after every choice"
    robust = True

    def __init__(self, malicious: Whole | None = None) -> None:
        super().__init__()
        self.malicious = malicious

    def merge(self, updates: Updates) -> Tensor:
        rows, malicious = len(updates), self.malicious
        if malicious is None:
            malicious = liars(rows, (rows - 3) // 4)
            if rows >= 5 and not malicious:
                raise UserError(
                    f"bulyan needs 7 clients a round to bear one that lies, got {rows}: sample "
                    "more clients, or set malicious = 0"
                )
        enough("bulyan", rows, malicious, 4 * malicious + 3)
        theta = rows - 2 * malicious
        near = theta - 2 * malicious
        trusted = krum_scores(updates.gram, malicious).argsort(stable=True)[:theta]

        def statistic(values: Tensor) -> Tensor:
            # Among sorted values, the nearest to the median are neighbours: try each window.
            centre = middle(values)
            low, high = values[:, : theta - near + 1], values[:, near - 1 :]
            farthest = torch.maximum(centre[:, None] - low, high - centre[:, None])
            first = farthest.argmin(1, keepdim=True)
            return values.gather(1, first + torch.arange(near)).mean(1)

        return by_columns(updates.matrix, statistic, trusted)
