"""Methods whose clients keep their backbones, or share them where an option says so."""

from __future__ import annotations

from torch import Tensor

from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class OwnBackbones(LocalMethod):
    """Base of methods that couple clients by something other than weights.

    A client's backbone is private state, ``own.backbone`` ``[P]``, unless backbones are merged.

    Args:
        merge: whether clients send the updates of their backbones, too.
    """

    def __init__(self, merge: bool) -> None:
        self.shares = merge

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        return {} if self.shares else {"own.backbone": received.clone()}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        return self.backbones(job), job.private

    def backbones(self, job: Job) -> Tensor:
        """``[clients, P]``, the backbones that are trained."""
        return job.shared if self.shares else job.private["own.backbone"]

    def weights(self, job: Job) -> Tensors:
        """Return all that the clients' models consist of, by name."""
        return {**job.layout.views(self.backbones(job)), **job.private}
