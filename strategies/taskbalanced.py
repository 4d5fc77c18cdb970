"""Every task counts the same, however many clients or examples it has."""

from torch import Tensor

from fedjoint.options import Positive
from fedjoint.server.updates import Updates

from .fedavg import FedAvg


class TaskBalanced(FedAvg):
    """``step = server_lr * mean over tasks t of (weighted mean of the updates that trained t)``.

    The mean is over the tasks trained in this round, and plain: weights only count among the
    clients of one task, and are split over the tasks of a client that has several. It is the
    federated counterpart of equal loss weights in multi-task learning, and the baseline for the
    conflict-aware rules. Tasks that come together on a client share its update, in which each
    pulls as if it were alone: for pulls that are equal then, too, take ``fedavg`` with
    ``strategy.weight_by = "task"``, or tell the tasks apart.

    Args:
        server_lr: factor on the merged update.
        tasks_apart: whether a client with T tasks tells their updates apart, and sends T times as
            much: see docs/conflict.md.
    """

    def __init__(self, server_lr: Positive = 1.0, tasks_apart: bool = False) -> None:
        super().__init__(server_lr)
        self.tasks_apart = tasks_apart

    def merge(self, updates: Updates) -> Tensor:
        return self.step(updates.by_task().matrix.mean(0))
