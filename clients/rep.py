"""FedRep's local method: heads first, then the backbone.

The server's half is :mod:`fedjoint.strategies.fedrep`.
"""

from __future__ import annotations

from fedjoint.options import Count
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class Rep(LocalMethod):
    """Fit the heads to the frozen backbone, then the backbone to the frozen heads.

    Args:
        head_steps: steps on the heads; the backbone gets the round's budget.

    Paper: Collins et al., "Exploiting Shared Representations for Personalized Federated
    Learning", ICML 2021, https://arxiv.org/abs/2102.07078
    """

    mu = 0.0

    def __init__(self, head_steps: Count) -> None:
        self.head_steps = head_steps

    def train(self, job: Job) -> Tensors:
        job.descend(
            trainable=lambda name: name.startswith("heads."),
            steps=self.head_steps,
            stream=1,
            record=False,
        )
        job.descend(trainable=lambda name: not name.startswith("heads."))
        return {}
