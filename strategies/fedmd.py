"""FedMD: clients share what they predict for examples that all have, in place of weights.

The clients' half is :mod:`fedjoint.clients.fedmd`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.options import Count, Positive

from .fedavg import FedAvg

log = logging.getLogger("fedjoint.strategies")


class FedMD(FedAvg):
    """The consensus of a task, ``sum_i logits_i / clients``, over the clients that have the task.

    Logits are those of the problem's ``public`` examples, which have no labels. The state holds
    ``consensus/<task>`` ``[public, outputs]`` of multiclass and multilabel tasks.

    Args:
        digest_steps: local steps towards the consensus, before the round's budget on own data.
        merge: merge backbones, too, by their mean (within groups, where clients are in groups). In
            the paper every client keeps its own.
        server_lr: factor on the mean update, where backbones are merged.

    Paper: Li and Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", 2019,
    https://arxiv.org/abs/1910.03581
    """

    method = "fedmd"
    omits = "transfer learning on labels of the public examples, which have none here"

    def __init__(
        self, digest_steps: Count = 10, merge: bool = False, server_lr: Positive = 1.0
    ) -> None:
        super().__init__(server_lr)
        self.method_options |= {"digest_steps": digest_steps, "merge": merge}

    def hear(self, told: Mapping[str, Tensor]) -> None:
        alike = _alike(told["public"])
        for name, logits in told.items():
            kind, _, task = name.partition("/")
            if kind == "logits":
                weights = told[f"has/{task}"].double() * alike
                total = torch.tensordot(weights, logits.double(), 1)
                if weights.sum() > 0:
                    self.state[f"consensus/{task}"] = (total / weights.sum()).float()

    def tell(self) -> dict[str, Tensor]:
        return dict(self.state)


def _alike(public: Tensor) -> Tensor:
    """Return ``[clients]`` one for those that have the public examples that most have, else zero.

    Raises:
        UserError: no more than half have the same.
    """
    marks, count = public.unique(return_counts=True)
    alike = public == marks[count.argmax()]
    if 2 * alike.sum() <= len(public):
        raise UserError(
            "clients have other public examples than one another: give every node the same"
        )
    if not alike.all():
        log.warning(
            "%d of %d clients have other public examples than most, and have no part in the "
            "consensus: give every node the same",
            int((~alike).sum()),
            len(public),
        )
    return alike
