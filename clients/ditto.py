"""Ditto's local method: a model of one's own, held near the shared one.

The server's half is :mod:`fedjoint.strategies.ditto`.
"""

from __future__ import annotations

from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.options import NotNegative
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors

from ._own import own_part
from ._pull import check_pull, pull_to


class Ditto(LocalMethod):
    """Beside the shared training, minimise ``loss + lam / 2 * |own - received|^2``.

    The own backbone is private state ``own.backbone`` ``[P]``, its heads ``own.<name>``.

    Args:
        lam: strength of the pull.

    Paper: Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML
    2021, https://arxiv.org/abs/2012.04221
    """

    mu = 0.0

    def __init__(self, lam: NotNegative) -> None:
        self.lam = lam

    def check_config(self, config: Config) -> None:
        check_pull("lam", self.lam, config)

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        heads = model.private([task.name for task in tasks])
        return {"own.backbone": received.clone()} | {f"own.{n}": t for n, t in heads.items()}

    def train(self, job: Job) -> Tensors:
        pull = pull_to(job.layout.views(job.start), self.lam)
        own, heads = self.personal(job)
        # The tasks' weights are learnt once, by the shared training.
        weights = {n: t.clone() for n, t in job.private.items() if n.startswith("balance.")}
        job.descend(shared=own, private=heads | weights, correct=pull, record=False)
        job.descend()
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        own = own_part(job.private)
        return own.pop("backbone"), own
