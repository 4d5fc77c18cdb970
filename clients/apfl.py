"""APFL's local method: a mixture of an own and the shared model."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.method import Method, Tensors
from fedjoint.model import JointModel
from fedjoint.tasks import Task
from fedjoint.training.job import Job


class APFL(Method):
    """Train the shared backbone, and ``alpha * own + (1 - alpha) * shared`` by its own part.

    Each step trains the shared backbone and the heads, then the own backbone on the mixture's
    loss, whose gradient is ``alpha`` times that of the mixture. The own backbone is private
    state ``own.backbone`` ``[P]``; the heads, which never travel, serve both. The mixture's
    optimiser is plain SGD at the configured rate.

    Args:
        alpha: share of the own backbone.

    Paper: Deng, Kamani and Mahdavi, "Adaptive Personalized Federated Learning", 2020,
    https://arxiv.org/abs/2003.13461
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        return {"own.backbone": received.clone()}

    def train(self, job: Job) -> Tensors:
        own = job.private["own.backbone"]
        names = [n for n in job.layout.shapes if n in job.trainable]
        job.descend()
        for batch in job.batches():
            mixed = self.mixed(job)
            found = job.gradients(batch, mixed, job.private, names)
            views = job.layout.views(own)
            for name in names:
                rate = self.alpha * _like(job.rate, views[name])
                move = rate * found.of[name]
                if batch.active is not None:
                    move = torch.where(_like(batch.active, move), move, torch.zeros_like(move))
                views[name].sub_(move)
        return {}

    def mixed(self, job: Job) -> Tensor:
        """Return the ``[clients, P]`` mixture."""
        return self.alpha * job.private["own.backbone"] + (1 - self.alpha) * job.shared

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        return self.mixed(job), job.private


def _like(per_client: Tensor, tensor: Tensor) -> Tensor:
    return per_client.view(-1, *[1] * (tensor.ndim - 1))
