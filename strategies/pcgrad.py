"""PCGrad: updates lose the part that points against another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedjoint.options import Positive, Whole
from fedjoint.server.updates import Updates

from ._conflict import ConflictAware, Length, Level
from ._cosines import unit
from ._projection import raise_cosines
from ._seeding import generator


class PCGrad(ConflictAware):
    """Projecting conflicting gradients: ``step = sum_i weights_i * projected_i``.

    ``projected_i`` starts as update i ``[P]`` and, for the other updates j in random order,
    loses its part along update j if their inner product is negative. The original sums
    gradients; the weights make updates without conflicts merge as in FedAvg.

    Args:
        level: ``task``, ``task_mean`` or ``client``, see
            :class:`fedjoint.strategies._conflict.ConflictAware`.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.
        seed: of the random orders, with the run's own, the round and the id.

    Paper: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
    https://arxiv.org/abs/2001.06782
    """

    def __init__(
        self,
        level: Level = "task",
        server_lr: Positive = 1.0,
        length: Length = "own",
        seed: Whole = 0,
    ) -> None:
        super().__init__(level, server_lr, length)
        self.seed = seed

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
