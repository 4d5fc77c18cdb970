"""APFL's local method: a mixture of an own and the shared model.

The server's half is :mod:`fedjoint.strategies.apfl`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.options import UpToOne
from fedjoint.training.job import Batch, Job
from fedjoint.training.method import LocalMethod, Tensors

from ._own import own_part


class APFL(LocalMethod):
    """Train the shared model, and beside it the mixture ``alpha * own + (1 - alpha) * shared``.

    On every minibatch the own model takes a step on the mixture's loss, whose gradient is
    ``alpha`` times that of the mixture, then the shared model one on its own loss. Backbones and
    heads are mixed alike. The own backbone is private state ``own.backbone`` ``[P]``, its heads
    ``own.<name>``.

    If alpha is adaptive, it is private state ``alpha`` of each client, and takes a step of its
    own down the mixture's loss once a round, on the first minibatch, as in the authors' code:
    ``alpha <- alpha - rate * <own - shared, gradient of the mixture>``, clipped to [0, 1].

    Args:
        alpha: share of the own model, in [0, 1]; if it is adaptive, the first.
        adaptive: whether every client learns its alpha.

    Paper: Deng, Kamani and Mahdavi, "Adaptive Personalized Federated Learning", 2020,
    https://arxiv.org/abs/2003.13461
    """

    mu = 0.0

    def __init__(self, alpha: UpToOne, adaptive: bool = False) -> None:
        self.alpha, self.adaptive = alpha, adaptive

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        heads = model.private([task.name for task in tasks])
        own = {f"own.{name}": t for name, t in heads.items() if t.is_floating_point()}
        learnt = {"alpha": received.new_tensor(self.alpha)} if self.adaptive else {}
        return {"own.backbone": received.clone()} | own | learnt

    def train(self, job: Job) -> Tensors:
        own = own_part(job.private)
        own = {**job.layout.views(own.pop("backbone")), **own}
        trained = {name: tensor for name, tensor in own.items() if name in job.trainable}
        optimiser = job.optimiser(trained)
        first = True

        def step(batch: Batch) -> None:
            nonlocal first
            backbone, rest = self.personal(job)
            found = job.gradients(batch, backbone, rest, trained).of
            share, slope = self._share(job), None
            if self.adaptive and first:
                slope = _slope(trained, {**job.layout.views(job.shared), **job.private}, found)
            first = False
            optimiser.step({n: _like(share, g) * g for n, g in found.items()}, batch.active)
            if slope is not None:
                job.private["alpha"] = (job.private["alpha"] - job.rate * slope).clamp(0, 1)
            # Buffers are not learnt: the own ones are those that the mixture's pass left.
            mixture = {**job.layout.views(backbone), **rest}
            for name in own.keys() - trained.keys():
                own[name].copy_(mixture[name])

        job.descend(beside=step)
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        share = self._share(job)
        mixed = {
            name: _mix(share, job.private[f"own.{name}"], tensor)
            if f"own.{name}" in job.private
            else tensor.clone()
            for name, tensor in job.private.items()
            if not name.startswith("own.")
        }
        return _mix(share, job.private["own.backbone"], job.shared), mixed

    def _share(self, job: Job) -> Tensor | float:
        return job.private["alpha"] if self.adaptive else self.alpha


def _slope(own: Tensors, shared: Tensors, gradients: Tensors) -> Tensor:
    """Return ``[clients]``, the derivatives of the mixtures' losses by alpha."""
    products = [((own[n] - shared[n]) * g).flatten(1).sum(1) for n, g in gradients.items()]
    return torch.stack(products).sum(0)


def _mix(share: Tensor | float, own: Tensor, shared: Tensor) -> Tensor:
    share = _like(share, own)
    return share * own + (1 - share) * shared


def _like(share: Tensor | float, tensor: Tensor) -> Tensor | float:
    """Return ``share``, ``[clients]`` or one for all, such that it multiplies ``tensor``."""
    return share.view(-1, *(1,) * (tensor.ndim - 1)) if isinstance(share, Tensor) else share
