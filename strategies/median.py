"""The coordinate-wise median."""

from torch import Tensor

from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._columns import by_columns, middle


class Median(JointStrategy):
    """``step[p] = median over i of update_i[p]``, each client counting once.

    Breakdown point: as long as fewer than half of the clients send something else, every
    ``step[p]`` lies among what the others sent.

    Paper: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
    Rates", ICML 2018, https://arxiv.org/abs/1803.01498
    """

    robust = True

    def merge(self, updates: Updates) -> Tensor:
        return by_columns(updates.matrix, middle)
