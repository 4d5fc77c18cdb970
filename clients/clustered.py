"""The local method of cluster-wise backbones (IFCA, CFL).

The server's half is :mod:`fedjoint.strategies.ifca` or :mod:`fedjoint.strategies.cfl`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class Clustered(LocalMethod):
    """Train the backbone of one's cluster.

    The server broadcasts ``backbones`` ``[K, P]`` and, where it decides who belongs where,
    ``assignment`` ``[ids]``. Clients without one, those beyond it and those of -1 join the cluster
    whose backbone has the lowest loss on their training data. Clients send ``cluster``
    ``[clients]``. Clusters differ in their P parameters; buffers are everyone's.

    Papers: Ghosh et al., "An Efficient Framework for Clustered Federated Learning", NeurIPS
    2020, https://arxiv.org/abs/2006.04088; Sattler, Müller and Samek, "Clustered Federated
    Learning", 2019, https://arxiv.org/abs/1910.01991
    """

    half_of = "ifca"

    def train(self, job: Job) -> Tensors:
        cluster = self.cluster(job)
        job.start = self.backbones(job)[cluster]
        job.shared.copy_(job.start)
        job.descend()
        return {"cluster": cluster}

    def cluster(self, job: Job) -> Tensor:
        """Return ``[clients]`` int64, the cluster of each."""
        backbones = self.backbones(job)
        ids = torch.from_numpy(job.cohort.clients).to(job.shared.device)
        assigned = job.broadcast.get("assignment", ids[:0])
        inside = ids < len(assigned)
        found = torch.full_like(ids, -1 if len(backbones) > 1 else 0)
        found[inside] = assigned[ids[inside]]
        if (found >= 0).all():
            return found
        losses = [job.loss(backbone.expand_as(job.shared)) for backbone in backbones]
        return torch.where(found < 0, torch.stack(losses).argmin(0), found)

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        return self.backbones(job)[self.cluster(job)], job.private

    def backbones(self, job: Job) -> Tensor:
        """Return the clusters' backbones, ``[K, P]`` and the received buffers after them."""
        parameters = job.broadcast["backbones"]
        buffers = job.received[parameters.shape[1] :].expand(len(parameters), -1)
        return torch.cat([parameters, buffers], 1)
