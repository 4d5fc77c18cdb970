"""FedBABU's local method: only the body learns.

The server's half is :mod:`fedjoint.strategies.fedbabu`.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from fedjoint.options import Count
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class Babu(LocalMethod):
    """Train the backbone under heads that stay as they were made; tune the model to evaluate.

    The tuning works on a copy: it never enters training.

    Args:
        tune: ``head``, as the paper recommends, ``body`` or ``both``.
        tune_epochs: passes over the client's data; by default a round's budget.
        tune_at: ``evaluation``: before each; ``end``: in the last of the configured rounds alone,
            the paper's protocol.

    Paper: Oh, Kim and Yun, "FedBABU: Toward Enhanced Representation for Federated Image
    Classification", ICLR 2022, https://arxiv.org/abs/2106.06042
    """

    mu = 0.0

    def __init__(
        self,
        tune: Literal["head", "body", "both"] = "head",
        tune_epochs: Count | None = None,
        tune_at: Literal["evaluation", "end"] = "evaluation",
    ) -> None:
        self.tune, self.tune_epochs, self.tune_at = tune, tune_epochs, tune_at

    def train(self, job: Job) -> Tensors:
        job.descend(trainable=lambda name: not name.startswith("heads."))
        return {}

    def personal(self, job: Job) -> tuple[Tensor, Tensors]:
        if self.tune_at == "end" and not job.last:
            return job.shared, job.private
        tuned = {name: tensor.clone() for name, tensor in job.private.items()}
        # BatchNorm counts in place, even in a frozen backbone, which all clients receive as one.
        shared = job.shared.clone()
        job.descend(shared=shared, private=tuned, trainable=self._tunes, epochs=self.tune_epochs)
        return shared, tuned

    def _tunes(self, name: str) -> bool:
        return self.tune == "both" or name.startswith("heads.") == (self.tune == "head")
