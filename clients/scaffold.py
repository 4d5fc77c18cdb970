"""SCAFFOLD's local method: control variates.

The server's half is :mod:`fedjoint.strategies.scaffold`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.joint import JointModel
from fedjoint.model.tasks import Task
from fedjoint.training.accumulation import accumulated
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class Scaffold(LocalMethod):
    """Add ``c - c_i`` to every gradient; then ``c_i <- c_i - c - update / (rate * sum_k a_k)``.

    The server broadcasts its ``control`` c ``[P]``; the client keeps c_i as ``control`` ``[P]``
    and sends its change (option II of the paper). P counts the parameters: buffers have no
    gradient, hence no control. ``a_k`` are the coefficients with which gradients enter the
    update: the paper's is plain SGD, where their sum is the number of steps. With momentum it is
    :func:`fedjoint.training.accumulation.accumulated`, which makes c_i what it is in the paper,
    a mean of the gradients on the way. Adam divides them by their size: no c_i comes of that.

    Paper: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated
    Learning", ICML 2020, https://arxiv.org/abs/1910.06378
    """

    half_of = "scaffold"

    def private(self, model: JointModel, tasks: tuple[Task, ...], received: Tensor) -> Tensors:
        return {"control": received.new_zeros(model.layout().parameters.size)}

    def train(self, job: Job) -> Tensors:
        server, own = job.broadcast["control"], job.private["control"]
        shift = job.layout.parameters.views(server - own)

        def correct(gradients: Tensors, _parameters: Tensors, _active: Tensor | None) -> None:
            for name in gradients.keys() & shift.keys():
                gradients[name] = gradients[name] + shift[name]

        job.descend(correct=correct)
        # Without a step the update is zero: any divisor will do.
        travelled = accumulated(job.steps.clip(min=1), job.momentum)
        update = (job.shared - job.start)[:, : own.shape[1]]
        way = job.rate * torch.from_numpy(travelled).to(job.rate)
        new = own - server - update / way[:, None]
        change = new - own
        job.private["control"] = new
        return {"control": change}
