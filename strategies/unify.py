"""Unify: task vectors that share a direction become one step, after MaTU."""

from __future__ import annotations

from torch import Tensor

from fedjoint.options import Positive, UpToOne
from fedjoint.server.updates import Updates
from fedjoint.training.unified import unified

from ._directions import shared_along
from .fedavg import FedAvg


class Unify(FedAvg):
    """Many-task merging by the directions of task vectors, for one shared backbone.

    With ``v_t`` ``[P]`` the weighted mean of the updates that trained task t:

    1. Similarity: ``S_ts`` is the share of coordinates on which the signs of v_t and v_s agree
       minus the share on which they differ, in [-1, 1].
    2. Transfer: ``u_t`` is the mean of the v_s, weighted by S_ts where that exceeds
       ``threshold`` (task t itself counts with weight one).
    3. Unification: coordinate by coordinate, the sign of ``sum_t u_t`` is elected, and the
       largest ``|u_t|`` among the tasks of that sign is its magnitude. Where the sum is zero up
       to the rounding of float32, so is the result.
    4. Rescaling: task t would multiply the unified vector z, masked to the coordinates where it
       agrees with u_t, by ``|u_t|_1 / |masked z|_1``. The step is z times the mean of these
       factors over tasks by weight.

    It is MaTU's rule for tasks that share one backbone: steps 1 to 3 stay, the masks are dropped
    and the factors become one. With one task it is FedAvg. The strategy ``matu`` has the masks.

    Args:
        threshold: least similarity at which tasks share, in [0, 1].
        server_lr: factor on the merged update.
        tasks_apart: whether a client with T tasks tells their updates apart, and sends T times as
            much (see docs/conflict.md); else, tasks of the very same clients have one vector.

    Paper: Tsouvalas, Ozcelebi and Meratnia, "Many-Task Federated Fine-Tuning via Unified Task
    Vectors", 2025, https://arxiv.org/abs/2502.06376
    """

    omits = "the masks and factors that give every task a model of its own, which matu has"

    def __init__(
        self, threshold: UpToOne = 0.0, server_lr: Positive = 1.0, tasks_apart: bool = False
    ) -> None:
        super().__init__(server_lr)
        self.threshold = threshold
        self.tasks_apart = tasks_apart

    def merge(self, updates: Updates) -> Tensor:
        tasks = updates.by_task()
        found = unified(shared_along(tasks.matrix, self.threshold))
        return self.step(tasks.weights @ found.factors * found.vector)
