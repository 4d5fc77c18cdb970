"""The local method of FedAMP.

The server's half is :mod:`fedjoint.strategies.fedamp`.
"""

from __future__ import annotations

from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.options import NotNegative
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors

from ._pull import check_pull, pull_to


class AMP(LocalMethod):
    """Train one's own backbone, from where it was: ``loss + lam / 2 * |own - received|^2``.

    It is private state, ``own.backbone`` ``[P + B]``, and what the client is evaluated with; its
    difference from the received one is sent.

    Args:
        lam: strength of the pull.

    Paper: Huang et al., "Personalized Cross-Silo Federated Learning on Non-IID Data", AAAI 2021,
    https://arxiv.org/abs/2007.03797
    """

    half_of = "fedamp"

    def __init__(self, lam: NotNegative) -> None:
        self.lam = lam

    def check_config(self, config: Config) -> None:
        check_pull("lam", self.lam, config)

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        return {"own.backbone": received.clone()}

    def train(self, job: Job) -> Tensors:
        job.shared.copy_(job.private["own.backbone"])
        job.descend(correct=pull_to(job.layout.views(job.start), self.lam))
        job.private["own.backbone"] = job.shared.clone()
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        return job.private["own.backbone"], job.private
