"""Clients that lie: a local method under which every fifth sends something else."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod

#: What a liar sends in place of its update u.
Attack = Literal["none", "sign flip", "boosted flip", "noise", "alike", "1e6 times"]

EVERY = 5  # of the clients, one lies
_FAR = 10.0  # times an update's length


class Lying(LocalMethod):
    """Train as ``joint`` does; clients with an id that five divides then send something else.

    - ``sign flip``: -u.
    - ``boosted flip``: -10 u.
    - ``noise``: Gaussian, ten times as long as u.
    - ``alike``: what all liars have agreed on, a random direction, as long as u.
    - ``1e6 times``: 10^6 u, further than any training goes.

    Args:
        attack: which.
    """

    def __init__(self, attack: Attack = "none") -> None:
        self.attack = attack

    def train(self, job: Job) -> dict[str, Tensor]:
        job.descend()
        liars = job.cohort.clients % EVERY == 0
        for row in liars.nonzero()[0].tolist():
            update = job.shared[row] - job.start
            seed = 0 if self.attack == "alike" else int(job.cohort.clients[row])
            job.shared[row] = job.start + self._lie(update, seed + 1000 * job.round)
        return {}

    def _lie(self, update: Tensor, seed: int) -> Tensor:
        if self.attack in ("noise", "alike"):
            drawn = torch.randn(len(update), generator=torch.Generator().manual_seed(seed))
            length = update.norm() * (_FAR if self.attack == "noise" else 1.0)
            return drawn * length / drawn.norm()
        factor = {"none": 1.0, "sign flip": -1.0, "boosted flip": -_FAR, "1e6 times": 1e6}
        return factor[self.attack] * update
