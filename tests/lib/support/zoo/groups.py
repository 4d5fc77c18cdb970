"""Groups of clients with other inputs, or other models, than the others."""

import torch
from support.people import Unequal
from torch import nn

from fedjoint import Examples, Group, Problem, Task


class _Trunk(nn.Module):
    def __init__(self, stem):
        super().__init__()
        self.stem = stem
        self.trunk = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, x):
        return self.trunk(self.stem(x))


def _examples(count, rng):
    x = torch.randn(count, 1, 4, 4, generator=rng)
    side = (x.mean((1, 2, 3)) > 0).long()
    side[::5] = -1
    return Examples(x, {"side": side, "sum": x.sum((1, 2, 3))[:, None]})


class _Mixed(Unequal):
    """The odd clients have the means of rows in place of whole images."""

    def client(self, index):
        own = super().client(index)
        if index % 2:
            for split in ("train", "valid", "test"):
                part = getattr(own, split)
                part = Examples(part.x.mean((1, 2)), part.y)
                object.__setattr__(own, split, part)
        return own


_TASKS = [Task("side", "multiclass", 2), Task("sum", "regression", 1)]


def _tall():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 8), nn.Tanh())


def stems(config):
    """Images and vectors, each through a stem of its own into a trunk of one shape."""
    groups = {
        "image": Group([0, 2], lambda: _Trunk(_tall()), torch.zeros(1, 1, 4, 4)),
        "vector": Group([1, 3], lambda: _Trunk(nn.Linear(4, 8)), torch.zeros(1, 4)),
    }
    return Problem.of_groups(_TASKS, _Mixed(_TASKS, _examples, config.seed), groups)


def unlike_models(config):
    """A perceptron and a convolution with batch normalisation, of other widths."""
    example = torch.zeros(1, 1, 4, 4)
    groups = {
        "dense": Group(
            [0, 3], lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh()), example
        ),
        "conv": Group(
            [1, 2],
            lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()),
            example,
        ),
    }
    return Problem.of_groups(_TASKS, Unequal(_TASKS, _examples, config.seed), groups)
