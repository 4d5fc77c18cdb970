"""Vectors in, one number, class or set of labels out."""

import torch
from support.people import Unequal
from torch import nn

from fedjoint import Examples, Problem, Task

_INPUTS = 6


def _examples(count, rng):
    x = torch.randn(count, _INPUTS, generator=rng)
    side = (x[:, 0] > 0).long()
    side[::5] = -1  # not everybody was asked
    both = torch.stack([x[:, 1] > 0, x[:, 2] > 0], 1).float()
    return Examples(x, {"side": side, "both": both, "sum": x.sum(1, keepdim=True)})


def mixed_tasks(config):
    """A perceptron with dropout for a class, two labels and a number."""
    tasks = [
        Task("side", "multiclass", 2),
        Task("both", "multilabel", 2),
        Task("sum", "regression", 1),
    ]
    return Problem(
        tasks,
        lambda: nn.Sequential(nn.Linear(_INPUTS, 8), nn.ReLU(), nn.Dropout(0.2)),
        Unequal(tasks, _examples, config.seed),
        torch.zeros(1, _INPUTS),
    )


def batch_norm(config):
    """Normalised by the batch, with statistics that are shared."""
    tasks = [Task("side", "multiclass", 2)]
    return Problem(
        tasks,
        lambda: nn.Sequential(nn.Linear(_INPUTS, 8), nn.BatchNorm1d(8), nn.ReLU()),
        Unequal(tasks, _examples, config.seed),
        torch.zeros(1, _INPUTS),
    )
