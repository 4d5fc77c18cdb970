"""Several models of one task as one: a weighted mean of what they predict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedjoint._util.convex import minimise

#: kinds of task of which predictions can be averaged
KINDS = ("multiclass", "multilabel", "regression")

_LEAST = 1e-12  # of a probability, for its logarithm


class EnsembleModel(nn.Module):
    """Maps inputs to the outputs ``[n, outputs]`` of the weighted mean of the members' predictions.

    Probabilities are averaged, and returned as their logits; values of a regression are averaged
    as they are.

    Args:
        members: models of one task, inputs to outputs.
        weights: ``[members]``, from 0 and summing to one.
        kind: of the task.
    """

    def __init__(self, members: Sequence[nn.Module], weights: Tensor, kind: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.weights: Tensor
        self.register_buffer("weights", weights.float())
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.stack([member(x) for member in self.members])
        return mixed(outputs, self.weights, self.kind)


def mixed(outputs: Tensor, weights: Tensor, kind: str) -> Tensor:
    """Return ``[n, outputs]``, what an ensemble makes of its members' ``[members, n, outputs]``."""
    if kind == "regression":
        return torch.einsum("m,mno->no", weights, outputs)
    # In logarithms: probabilities that round to zero keep their order.
    logs = weights.log()[:, None, None]
    if kind == "multiclass":
        return (logs + outputs.log_softmax(2)).logsumexp(0)
    sure, not_sure = nn.functional.logsigmoid(outputs), nn.functional.logsigmoid(-outputs)
    return (logs + sure).logsumexp(0) - (logs + not_sure).logsumexp(0)


def fitted(outputs: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Return the ``[members]`` float64 weights with the least mean loss on validation examples.

    The loss is minus the log of the mean probability of the label, or the squared error: both are
    convex in the weights, which are from 0 and sum to one. Without examples, all weigh alike.

    Args:
        outputs: ``[members, n, outputs]``.
        labels: ``[n]`` classes, or ``[n, outputs]`` labels or targets; none of them missing.
        kind: of the task.
    """
    count = len(outputs)
    start = np.full(count, 1 / count)
    if not len(labels):
        return torch.from_numpy(start)
    if kind == "regression":
        flat = outputs.double().flatten(1).numpy()
        target = labels.double().flatten().numpy()
        # In units of the targets' spread, so that tolerances are relative.
        spread = max(float(target.std()), _LEAST)

        def function(w: np.ndarray) -> tuple[float, np.ndarray]:
            wrong = (w @ flat - target) / spread
            return float(wrong @ wrong) / len(wrong), 2 * (flat / spread) @ wrong / len(wrong)

    else:
        right = _of_labels(outputs.double(), labels, kind).numpy()

        def function(w: np.ndarray) -> tuple[float, np.ndarray]:
            mean = np.maximum(w @ right, _LEAST)
            return -float(np.log(mean).mean()), -(right / mean).mean(1)

    return torch.from_numpy(minimise(function, start, np.zeros(count), np.ones(count)))


def _of_labels(outputs: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Return ``[members, n']``, the probability that each member gives to each label."""
    if kind == "multiclass":
        index = labels.expand(len(outputs), -1).unsqueeze(2)
        return outputs.softmax(2).gather(2, index).squeeze(2)
    sure = outputs.sigmoid()
    return torch.where(labels > 0.5, sure, 1 - sure).flatten(1)
