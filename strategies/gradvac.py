"""GradVac: PCGrad with a target cosine per pair, learnt from the past."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.options import Positive, Share, Whole
from fedjoint.server.updates import Updates

from ._conflict import Length, Level
from ._cosines import unit
from ._projection import raise_cosines
from .pcgrad import PCGrad


class GradVac(PCGrad):
    """Gradient vaccine: PCGrad with a target cosine per pair, learnt from the past.

    Update i is turned towards update j when their cosine phi is below the target t_ij (PCGrad:
    below zero), until it is t_ij; then ``t_ij <- (1 - beta) * t_ij + beta * phi``.

    The state holds ``ids`` ``[n]``, the clients or tasks seen so far, and ``targets`` ``[n, n]``
    float64, zero for pairs that never met.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.
        seed: of the random orders, with the run's own, the round and the id.
        beta: how fast the targets follow the cosines, in (0, 1].

    Paper: Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization
    in Massively Multilingual Models", ICLR 2021, https://arxiv.org/abs/2010.05874
    """

    omits = "targets of each layer's own"

    def __init__(
        self,
        level: Level = "task",
        server_lr: Positive = 1.0,
        length: Length = "own",
        seed: Whole = 0,
        beta: Share = 0.01,
    ) -> None:
        super().__init__(level, server_lr, length, seed)
        self.beta = beta

    def solve(self, gram: Tensor, weights: Tensor, rows: Updates, moved: Tensor) -> Tensor:
        ids = rows.clients.cpu()[moved]
        index = self.remember(ids)
        pairs = index[:, None], index
        targets = self.state["targets"][pairs]
        length, cosines = unit(gram)
        combination, met = raise_cosines(
            # A target of one could only be reached by an update of infinite length.
            cosines.numpy(),
            targets.clamp(max=1 - 1e-6).numpy(),
            self.order(rows.round, ids.numpy()),
        )
        moved_targets = targets + self.beta * (torch.from_numpy(met) - targets)
        self.state["targets"] = self.state["targets"].index_put(pairs, moved_targets)
        return weights * length @ torch.from_numpy(combination) / length

    def remember(self, ids: Tensor) -> Tensor:
        """Make room for ``ids`` in the state; return where they are in it."""
        old = self.state.get("ids", ids[:0])
        new = torch.cat([old, ids]).unique()
        targets = torch.zeros(len(new), len(new), dtype=torch.float64)
        if len(old):
            at = torch.searchsorted(new, old)
            targets[at[:, None], at] = self.state["targets"]
        self.state["ids"], self.state["targets"] = new, targets
        return torch.searchsorted(new, ids)
