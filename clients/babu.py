"""FedBABU's local method: only the body learns.

The server's half is :mod:`fedjoint.strategies.fedbabu`.
"""

from __future__ import annotations

from torch import Tensor

from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class Babu(LocalMethod):
    """Train the backbone under heads that stay as they were made; tune heads to evaluate.

    The tuning takes one round's budget, on a copy: it never enters training.

    Paper: Oh, Kim and Yun, "FedBABU: Toward Enhanced Representation for Federated Image
    Classification", ICLR 2022, https://arxiv.org/abs/2106.06042
    """

    mu = 0.0

    def train(self, job: Job) -> Tensors:
        job.descend(trainable=lambda name: not name.startswith("heads."))
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        tuned = {name: tensor.clone() for name, tensor in job.private.items()}
        # BatchNorm counts in place, even in a frozen backbone, which all clients receive as one.
        shared = job.shared.clone()
        job.descend(shared=shared, private=tuned, trainable=lambda name: name.startswith("heads."))
        return shared, tuned
