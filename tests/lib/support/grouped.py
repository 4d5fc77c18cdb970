"""Clients in two groups whose inputs have different widths, and what they train."""

import numpy as np
import torch
from torch import nn

from fedjoint import Client, Examples, Group, Problem, Task
from fedjoint.config.load import check

WIDTHS = {"narrow": 3, "wide": 5}
GROUP_OF = ("wide", "narrow", "wide", "narrow", "narrow")
SIZES = np.array([8, 12, 6, 10, 9])
TASKS = [Task("sign", "multiclass", 2), Task("sum", "regression", 1, scale="none")]
COMMON = ["backbone.trunk.*"]


class Stemmed(nn.Module):
    """A stem of the group's own below a trunk that all have."""

    def __init__(self, width):
        super().__init__()
        self.stem, self.trunk = nn.Linear(width, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x):
        return self.trunk(torch.tanh(self.stem(x)))


class People:
    """Five clients of unequal size; ``same`` gives all of them inputs of one width."""

    task_names = tuple(task.name for task in TASKS)
    sizes = SIZES
    tasks = np.array([[True, True], [True, False], [True, True], [False, True], [True, True]])

    def __init__(self, same=False):
        self.same = same

    def client(self, index):
        rng = torch.Generator().manual_seed(index)
        counts = [int(SIZES[index]), 4, 5]
        x = torch.randn(sum(counts), 4 if self.same else WIDTHS[GROUP_OF[index]], generator=rng)
        y = {"sign": (x[:, 0] > 0).long(), "sum": x.sum(1, keepdim=True)}
        y = {n: y[n] for n, has in zip(self.task_names, self.tasks[index], strict=True) if has}
        return Client(*map(Examples(x, y).take, torch.arange(len(x)).split(counts)))


def clients(group):
    return [client for client, name in enumerate(GROUP_OF) if name == group]


def stemmed():
    """A problem with a stem for each width."""
    groups = {
        name: Group(clients(name), lambda width=width: Stemmed(width), torch.zeros(1, width))
        for name, width in WIDTHS.items()
    }
    return Problem.of_groups(TASKS, People(), groups)


def config(folder, **more):
    tree = {
        "rounds": 3,
        "local": {"batch_size": 4, "optimiser": {"lr": 0.05}},
        "engine": {"name": "inline"},
        "output": {"dir": str(folder), "checkpoint_every": 1},
    }
    return check({**tree, **more})
