"""Training alone: what joint training is compared with."""

from __future__ import annotations

from torch import Tensor

from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class Independent(LocalMethod):
    """Every client trains a backbone of its own, from the same start and with the same budget.

    It is private state, ``own.backbone`` ``[P]``; nothing is sent.
    """

    shares = False

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        return {"own.backbone": received.clone()}

    def train(self, job: Job) -> Tensors:
        job.descend(shared=job.private["own.backbone"])
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        return job.private["own.backbone"], job.private
