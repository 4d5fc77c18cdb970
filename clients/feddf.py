"""FedDF's local method: distil the ensemble of all clients, then train on one's own data.

The server's half is :mod:`fedjoint.strategies.feddf`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fedjoint.model.tasks import Task
from fedjoint.options import Count

from .fedmd import Apart, FedMD


class FedDF(FedMD):
    """Digest, train, then say what the model predicts for the public examples, as ``fedmd`` does.

    Digesting is ``digest_steps`` steps on minibatches of public examples, the same ones on every
    client, that minimise the divergence ``KL(ensemble || model)`` of the tasks' labels: softmax of
    a multiclass task's logits, sigmoid of a multilabel one's. All begin with the group's merged
    model, heads included, so all arrive at what the paper's server would send them.

    Args:
        digest_steps: steps towards the ensemble.

    Paper: Lin et al., "Ensemble Distillation for Robust Model Fusion in Federated Learning",
    NeurIPS 2020, https://arxiv.org/abs/2006.07242
    """

    half_of = "feddf"
    omits = "distillation after the last round, and its own optimiser and early stopping"

    def __init__(self, digest_steps: Count = 10) -> None:
        super().__init__(digest_steps, merge=True)

    def apart(self, task: Task) -> Apart:
        return _of_classes if task.kind == "multiclass" else _of_labels


def _of_classes(logits: Tensor, ensemble: Tensor) -> Tensor:
    return F.kl_div(
        logits.log_softmax(-1), ensemble.log_softmax(-1), reduction="batchmean", log_target=True
    )


def _of_labels(logits: Tensor, ensemble: Tensor) -> Tensor:
    yes = F.kl_div(F.logsigmoid(logits), F.logsigmoid(ensemble), reduction="none", log_target=True)
    no = F.kl_div(F.logsigmoid(-logits), F.logsigmoid(-ensemble), reduction="none", log_target=True)
    return (yes + no).mean()
