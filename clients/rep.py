"""FedRep's local method: heads first, then the backbone.

The server's half is :mod:`fedjoint.strategies.fedrep`.
"""

from __future__ import annotations

from fedjoint.errors import UserError
from fedjoint.options import Count
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, Tensors


class Rep(LocalMethod):
    """Fit the heads to the frozen backbone, then the backbone to the frozen heads.

    Args:
        head_steps: steps on the heads; the backbone gets the round's budget.
        head_epochs: passes over the data on the heads, in place of steps.

    Paper: Collins et al., "Exploiting Shared Representations for Personalized Federated
    Learning", ICML 2021, https://arxiv.org/abs/2102.07078
    """

    mu = 0.0

    def __init__(self, head_steps: Count | None = None, head_epochs: Count | None = None) -> None:
        if (head_steps is None) == (head_epochs is None):
            raise UserError("give either head_steps or head_epochs")
        self.head_steps, self.head_epochs = head_steps, head_epochs

    def train(self, job: Job) -> Tensors:
        job.descend(
            trainable=lambda name: name.startswith("heads."),
            steps=self.head_steps,
            epochs=self.head_epochs,
            stream=1,
            record=False,
        )
        job.descend(trainable=lambda name: not name.startswith("heads."))
        return {}
