"""Multi-Krum: the mean of the updates that have close neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.options import Count, Whole
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._krum import enough, krum_scores, liars


class MultiKrum(JointStrategy):
    """The weighted mean of the ``select`` updates with the lowest :func:`krum_scores`.

    Breakdown point: ``malicious`` clients, which may send anything. Every update that is kept is
    then no further from one of the others' than ``sqrt(rows - malicious - 2)`` times the
    greatest distance between those.

    Args:
        malicious: number f of clients that may send anything; if any, a round needs
            ``2 * f + 3`` clients and ``select + f``. None: a fifth of the clients, as far as that
            goes.
        select: number of updates to keep; the paper's m.

    Raises:
        UserError: a round has too few updates.

    Paper: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent", NeurIPS 2017, https://arxiv.org/abs/1703.02757
    """

    robust = True

    def __init__(self, malicious: Whole | None = None, select: Count = 5) -> None:
        super().__init__()
        self.malicious = malicious
        self.best = select

    def merge(self, updates: Updates) -> Tensor:
        rows, malicious = len(updates), self.malicious
        if malicious is None:
            malicious = liars(rows, min((rows - 3) // 2, rows - self.best))
        enough(f"multikrum (select = {self.best})", rows, malicious, self.best + malicious)
        best = krum_scores(updates.gram, malicious).argsort(stable=True)[: self.best]
        kept = torch.zeros_like(updates.weights)
        kept[best] = updates.weights[best]
        return updates.combine(kept / kept.sum())
