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
    and sends its change (option II of the paper). P counts the parameters: buffers have no
    gradient, hence no control. Made for plain SGD.

    Paper: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated
    Learning", ICML 2020, https://arxiv.org/abs/1910.06378
    """

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        return {"control": received.new_zeros(model.layout().parameters.size)}

    def train(self, job: Job) -> Tensors:
        server, own = job.broadcast["control"], job.private["control"]
        shift = job.layout.parameters.views(server - own)

        def correct(gradients: Tensors, parameters: Tensors) -> None:
            for name in gradients.keys() & shift.keys():
                gradients[name] = gradients[name] + shift[name]

        job.descend(correct=correct)
        travelled = torch.from_numpy(job.steps).to(own).clamp(min=1) * job.rate
        update = (job.shared - job.start)[:, : own.shape[1]]
        new = own - server - update / travelled[:, None]
        change = new - own
        job.private["control"] = new
        return {"control": change}
