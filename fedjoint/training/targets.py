"""Targets of regression tasks: in their own units outside, of about unit size in training.

A client learns ``(target - mean) / deviation``. The mean and the deviation are those of its own
training examples, so that nothing is shared and nothing has to be kept: the same data gives the
same scale after a restart. Private heads need not agree on it. Where clients learn one function
of the features (a shared head, or one without parameters), they have to: see ``Task.scale``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fedjoint.model.loss import TaskLoss
from fedjoint.model.positions import by_position
from fedjoint.model.tasks import Task


class Scale(NamedTuple):
    """How targets are scaled, of one client or, with one more dimension in front, of several.

    Attributes:
        mean: ``[outputs]`` float64.
        deviation: ``[outputs]`` float64, above zero.
    """

    mean: Tensor
    deviation: Tensor

    def learnt(self, targets: Tensor) -> Tensor:
        """Return targets ``[clients, n, outputs, ...]`` as they are learnt."""
        mean, deviation = (_beside(part, targets) for part in (self.mean, self.deviation))
        return ((targets.double() - mean) / deviation).float()

    def units(self, outputs: Tensor) -> Tensor:
        """Return outputs ``[clients, n, outputs, ...]`` in the targets' units, float64."""
        mean, deviation = (_beside(part, outputs) for part in (self.mean, self.deviation))
        return outputs.double() * deviation + mean


def _beside(part: Tensor, values: Tensor) -> Tensor:
    """Return ``[clients, outputs]`` numbers as they go with ``[clients, n, outputs, ...]``."""
    return part.view(len(part), 1, part.shape[1], *[1] * (values.ndim - 3))


#: what makes the scale of a client: its own examples, or an agreement of all clients
Rules = Mapping[str, Scale | None]


def scaling_rules(tasks: Sequence[Task], heads: Mapping[str, nn.Module]) -> dict[str, Scale | None]:
    """Return what scales the targets of those tasks that are scaled.

    Args:
        tasks: all tasks.
        heads: task -> its head, of those tasks whose heads are private.

    Returns:
        Task -> the scale of all clients, or None, where each has its own.
    """
    rules: dict[str, Scale | None] = {}
    for task in tasks:
        if isinstance(task.scale, tuple):
            mean, deviation = (
                torch.tensor(part, dtype=torch.float64).expand(task.outputs) for part in task.scale
            )
            rules[task.name] = Scale(mean, deviation)
        elif task.scale == "own" or (
            task.scale is None
            and task.form.scaled
            and (task.loss is None or isinstance(task.loss, TaskLoss))
            and task.name in heads
            and any(parameter.requires_grad for parameter in heads[task.name].parameters())
        ):
            rules[task.name] = None
    return rules


def own_scale(targets: Tensor) -> Scale:
    """Return the scale of a client: the mean and the deviation of its training examples.

    A constant target has the deviation 1; without any examples, the mean is 0.

    Args:
        targets: ``[n, outputs, ...]``; NaN are missing.
    """
    # NumPy on a copy: the same bits wherever the targets are, and whoever lies beside them.
    values = by_position(targets, targets)[1].flatten(0, 1).detach().cpu().numpy()
    values = values.astype(np.float64)
    values = values[~np.isnan(values).any(1)]
    if not len(values):
        values = np.zeros((1, targets.shape[1]))
    deviation = values.std(0)
    mean = torch.from_numpy(values.mean(0))
    return Scale(mean, torch.from_numpy(np.where(deviation > 0, deviation, 1.0)))


def stacked(scales: Sequence[Scale], device: torch.device) -> Scale:
    """Return the scales of several clients as one."""
    mean, deviation = (torch.stack(part).to(device) for part in zip(*scales, strict=True))
    return Scale(mean, deviation)
