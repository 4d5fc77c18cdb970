"""APFL's local method: a mixture of an own and the shared model."""

from __future__ import annotations

from torch import Tensor

from clients.own import own_part
from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.training.job import Batch, Job
from fedjoint.training.method import Method, Tensors


class APFL(Method):
    """Train the shared model, and beside it the mixture ``alpha * own + (1 - alpha) * shared``.

    On every minibatch the own model takes a step on the mixture's loss, whose gradient is
    ``alpha`` times that of the mixture, then the shared model one on its own loss. Backbones and
    heads are mixed alike. The own backbone is private state ``own.backbone`` ``[P]``, its heads
    ``own.<name>``.

    Args:
        alpha: share of the own model, in [0, 1].

    Paper: Deng, Kamani and Mahdavi, "Adaptive Personalized Federated Learning", 2020,
    https://arxiv.org/abs/2003.13461
    """

    mu = 0.0

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        heads = model.private([task.name for task in tasks])
        return {"own.backbone": received.clone()} | {
            f"own.{name}": tensor for name, tensor in heads.items() if tensor.is_floating_point()
        }

    def train(self, job: Job) -> Tensors:
        own = own_part(job.private)
        own = {**job.layout.views(own.pop("backbone")), **own}
        trained = {name: tensor for name, tensor in own.items() if name in job.trainable}
        optimiser = job.optimiser(trained)

        def step(batch: Batch) -> None:
            backbone, rest = self.personal(job)
            found = job.gradients(batch, backbone, rest, trained)
            optimiser.step({n: self.alpha * g for n, g in found.of.items()}, batch.active)
            # Buffers are not learnt: the own ones are those that the mixture's pass left.
            mixture = {**job.layout.views(backbone), **rest}
            for name in own.keys() - trained.keys():
                own[name].copy_(mixture[name])

        job.descend(beside=step)
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        mixed = {
            name: self._mix(job.private[f"own.{name}"], tensor)
            if f"own.{name}" in job.private
            else tensor.clone()
            for name, tensor in job.private.items()
            if not name.startswith("own.")
        }
        return self._mix(job.private["own.backbone"], job.shared), mixed

    def _mix(self, own: Tensor, shared: Tensor) -> Tensor:
        return self.alpha * own + (1 - self.alpha) * shared
