"""The local method of MaTU.

The server's half is :mod:`fedjoint.strategies.matu`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors
from fedjoint.training.unified import Unified, key, packed, unified, unpacked


class MaTU(LocalMethod):
    """Train a backbone for each of a client's tasks; send them as one vector with modulators.

    A client with several tasks rebuilds each task's backbone, the origin plus its factor times the
    masked unified vector, from the one that it receives and from ``masks/<tasks>``
    ``[tasks, ceil(P / 8)]`` uint8 and ``factors/<tasks>`` ``[tasks]``, which the server sends for
    its set of tasks, sorted by name. It trains each on that task alone, for the round's budget,
    unifies what they differ from the origin, and sends that, ``masks`` ``[S, ceil(P / 8)]`` and
    ``factors`` ``[S]``, S being the number of all tasks. BatchNorm's statistics are the mean over
    its tasks. It is evaluated with the backbone of each task.

    Paper: Tsouvalas, Ozcelebi and Meratnia, "Many-Task Federated Fine-Tuning via Unified Task
    Vectors", 2025, https://arxiv.org/abs/2502.06376
    """

    half_of = "matu"

    def check_config(self, config: Config) -> None:
        if config.balance.name != "fixed":
            raise UserError(
                f"balance = {config.balance.name!r}: matu trains the tasks of a client apart, and "
                "none of them weighs against another; leave balance out"
            )
        if config.model.heads == "shared":
            raise UserError(
                "model.heads = 'shared': matu mixes what all tasks have, which heads are not; "
                "leave model.heads out"
            )

    def train(self, job: Job) -> Tensors:
        size, count = job.layout.parameters.size, int(job.broadcast["tasks"])
        origin, clients = job.broadcast["origin"], len(job.cohort)
        masks = torch.zeros(clients, count, -(-size // 8), dtype=torch.uint8).to(origin.device)
        factors = origin.new_zeros(clients, count)
        names = sorted(task.name for task in job.cohort.tasks)
        if len(names) == 1:
            job.descend()
            return {"masks": masks, "factors": factors}
        own = self._rebuilt(job, names)
        for at, name in enumerate(names):
            job.descend(shared=own[at], task=name)
        found = unified(own[..., :size].transpose(0, 1) - origin)
        job.shared.copy_(own.mean(0))
        job.shared[:, :size] = origin + found.vector
        masks[:, : len(names)] = packed(found.masks)
        factors[:, : len(names)] = found.factors
        return {"masks": masks, "factors": factors}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        names = sorted(task.name for task in job.cohort.tasks)
        if len(names) == 1:
            return job.shared, job.private
        own = self._rebuilt(job, names)
        order = [names.index(task.name) for task in job.cohort.tasks]
        return own[order].transpose(0, 1), job.private

    def _rebuilt(self, job: Job, names: list[str]) -> Tensor:
        """``[tasks, clients, P + B]``, the backbones of the tasks."""
        size, origin, which = job.layout.parameters.size, job.broadcast["origin"], key(names)
        own = job.shared.expand(len(names), *job.shared.shape).clone()
        if f"masks/{which}" in job.broadcast:  # else nobody has trained these tasks yet
            masks = unpacked(job.broadcast[f"masks/{which}"], size)
            vector = job.shared[:, :size] - origin
            found = Unified(vector, masks, job.broadcast[f"factors/{which}"])
            own[..., :size] = origin + found.vectors().transpose(0, 1)
        return own
