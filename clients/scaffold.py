"""SCAFFOLD's local method: control variates."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.method import Method, Tensors
from fedjoint.model import JointModel
from fedjoint.tasks import Task
from fedjoint.training.job import Job


class Scaffold(Method):
    """Add ``c - c_i`` to every gradient; then ``c_i <- c_i - c - update / (steps * rate)``.

    The server broadcasts its ``control`` c ``[P]``; the client keeps c_i as ``control`` ``[P]``
    and sends its change (option II of the paper). Made for plain SGD.

    Paper: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated
    Learning", ICML 2020, https://arxiv.org/abs/1910.06378
    """

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        return {"control": torch.zeros_like(received)}

    def train(self, job: Job) -> Tensors:
        server, own = job.broadcast["control"], job.private["control"]
        shift = job.layout.views(server - own)

        def correct(gradients: Tensors, parameters: Tensors) -> None:
            for name in gradients.keys() & shift.keys():
                gradients[name] = gradients[name] + shift[name]

        job.descend(correct=correct)
        travelled = torch.from_numpy(job.steps).to(own).clamp(min=1) * job.rate
        new = own - server - (job.shared - job.start) / travelled[:, None]
        # Buffers have no gradient, hence no control.
        for name, values in job.layout.views(new).items():
            if name not in job.trainable:
                values.zero_()
        change = new - own
        job.private["control"] = new
        return {"control": change}
