"""The local method of FedALA.

The server's half is :mod:`fedjoint.strategies.fedala`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.options import Count, Positive
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class ALA(LocalMethod):
    """Start from ``own + mix * (received - own)``, a merge that each client learns on its data.

    ``own`` is the client's backbone of its last round and ``mix`` a number from 0 to 1 for each
    parameter, ones at first; both are private state, ``own.backbone`` ``[P + B]`` and ``own.mix``
    ``[P]``. Before training, ``mix`` descends the loss of the merged model: on every minibatch
    ``mix <- mix - rate * (received - own) * gradient``, clipped to [0, 1]. A client is evaluated
    with the merge of the backbone that is merged by then. Buffers are those received.

    Args:
        mix_epochs: passes over the client's data to learn ``mix``.
        mix_rate: of these steps.

    Paper: Zhang et al., "FedALA: Adaptive Local Aggregation for Personalized Federated Learning",
    AAAI 2023, https://arxiv.org/abs/2212.01197
    """

    omits = "lower layers that are not mixed, a sample of the data, more passes in the first round"

    def __init__(self, mix_epochs: Count, mix_rate: Positive) -> None:
        self.mix_epochs, self.mix_rate = mix_epochs, mix_rate

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        mix = torch.ones(model.layout().parameters.size).to(received)
        return {"own.backbone": received.clone(), "own.mix": mix}

    def train(self, job: Job) -> Tensors:
        self.learn(job)
        job.shared.copy_(self.merged(job, job.start))
        job.descend()
        job.private["own.backbone"] = job.shared.clone()
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        return self.merged(job, job.shared), job.private

    def learn(self, job: Job) -> None:
        """Descend the loss of the merged model by ``mix``."""
        layout, mix = job.layout.parameters, job.private["own.mix"]
        way = (job.start - job.private["own.backbone"])[:, : mix.shape[1]]
        if not way.any():  # as in a client's first round, where any mix is the same
            return
        for batch in job.batches(stream=1, epochs=self.mix_epochs):
            merged = self.merged(job, job.start)
            found = job.gradients(batch, merged, job.private, layout.shapes).of
            slope = torch.cat([found[name].flatten(1) for name in layout.shapes], 1)
            moved = (mix - self.mix_rate * way * slope).clamp(0, 1)
            mix.copy_(moved if batch.active is None else moved.where(batch.active[:, None], mix))

    def merged(self, job: Job, received: Tensor) -> Tensor:
        """``[clients, P + B]``, the merges of the clients' own backbones with the received."""
        own, mix = job.private["own.backbone"], job.private["own.mix"]
        size = mix.shape[1]
        found = received.expand_as(own).clone()
        found[:, :size] = own[:, :size] + mix * (found[:, :size] - own[:, :size])
        return found
