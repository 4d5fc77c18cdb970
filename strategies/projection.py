"""PCGrad and GradVac: one update after the other is turned away from those it conflicts with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedjoint.server.updates import Updates
from strategies.conflict import ConflictAware
from strategies.cosines import ROUNDING, unit
from strategies.options import number, whole
from strategies.seeding import generator


def raise_cosines(
    cosines: np.ndarray, targets: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Raise the cosine of every update with every other to a target, one pair at a time.

    Row i starts as update i, of length one. For j in ``order[i]``, if the cosine phi of row i
    with update j is below the target t, ``a_ij * update_j`` is added to row i to make it t, with
    ``a_ij = |row_i| * (t * sqrt(1 - phi^2) / sqrt(1 - t^2) - phi)``. A target of zero is the
    projection onto the plane normal to update j. A row that has cancelled out stays as it is.

    Args:
        cosines: ``[rows, rows]``, of the updates.
        targets: ``[rows, rows]`` target cosines, below one.
        order: ``[rows, rows]`` permutations, one per row.

    Returns:
        ``[rows, rows]``, the rows as combinations of the updates, all of length one; and
        ``[rows, rows]``, the cosines phi met on the way (one on the diagonal), which are the
        targets where a row had cancelled out.
    """
    n = len(cosines)
    combination, met = np.eye(n), targets.copy()
    np.fill_diagonal(met, 1)
    inner, square = cosines.copy(), np.ones(n)  # row i with the updates; with itself
    added = np.ones(n)  # lengths that made up row i
    for j in order.T:  # all rows advance together: row i meets update j[i]
        # What is left of a row that has cancelled out is rounding, with no direction.
        i = np.flatnonzero((j != np.arange(n)) & (square > (ROUNDING * added) ** 2))
        j = j[i]
        own, target = np.sqrt(square[i]), targets[i, j]
        met[i, j] = phi = (inner[i, j] / own).clip(-1, 1)
        low = phi < target
        i, j, phi, own, target = i[low], j[low], phi[low], own[low], target[low]
        # The part of row i normal to update j has length own * sqrt(1 - phi^2).
        a = own * (target * np.sqrt((1 - phi**2) / (1 - target**2)) - phi)
        square[i] += 2 * a * inner[i, j] + a**2
        inner[i] += a[:, None] * cosines[j]
        combination[i, j] += a
        added[i] += np.abs(a)
    return combination, met


class PCGrad(ConflictAware):
    """Projecting conflicting gradients: ``step = sum_i weights_i * projected_i``.

    ``projected_i`` starts as update i ``[P]`` and, for the other updates j in random order,
    loses its part along update j if their inner product is negative. The original sums
    gradients; the weights make updates without conflicts merge as in FedAvg.

    Args:
        level: ``task`` or ``client``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`strategies.conflict.ConflictAware`.
        seed: of the random orders, with the run's own, the round and the id.

    Raises:
        UserError: an option is out of range.

    Paper: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
    https://arxiv.org/abs/2001.06782
    """

    def __init__(
        self,
        level: str = "task",
        server_lr: float = 1.0,
        length: str = "own",
        seed: int = 0,
    ) -> None:
        super().__init__(level, server_lr, length)
        self.seed = whole("seed", seed, least=0)

    def order(self, round: int, ids: np.ndarray) -> np.ndarray:
        """Return ``[n, n]``, a random order of the updates for each of them.

        Args:
            round: the round.
            ids: ``[n]``, the clients or tasks; their order does not matter.
        """
        by_id = np.argsort(ids)
        return np.stack([generator(self, self.seed, round, int(i)).permutation(by_id) for i in ids])

    def solve(self, gram: Tensor, weights: Tensor, rows: Updates, moved: Tensor) -> Tensor:
        length, cosines = unit(gram)
        order = self.order(rows.round, rows.clients.cpu()[moved].numpy())
        combination, _ = raise_cosines(cosines.numpy(), np.zeros(cosines.shape), order)
        return weights * length @ torch.from_numpy(combination) / length


class GradVac(PCGrad):
    """Gradient vaccine: PCGrad with a target cosine per pair, learnt from the past.

    Update i is turned towards update j when their cosine phi is below the target t_ij (PCGrad:
    below zero), until it is t_ij; then ``t_ij <- (1 - beta) * t_ij + beta * phi``.

    The state holds ``ids`` ``[n]``, the clients or tasks seen so far, and ``targets`` ``[n, n]``
    float64, zero for pairs that never met.

    Args:
        level: ``task`` or ``client``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`strategies.conflict.ConflictAware`.
        seed: of the random orders, with the run's own, the round and the id.
        beta: how fast the targets follow the cosines, in (0, 1].

    Raises:
        UserError: an option is out of range.

    Paper: Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization
    in Massively Multilingual Models", ICLR 2021, https://arxiv.org/abs/2010.05874
    """

    omits = "targets of each layer's own"

    def __init__(
        self,
        level: str = "task",
        server_lr: float = 1.0,
        length: str = "own",
        seed: int = 0,
        beta: float = 0.01,
    ) -> None:
        super().__init__(level, server_lr, length, seed)
        self.beta = number("beta", beta, above=0, most=1)

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
