"""Ten clients whose objectives are parabolas, so that the optimum of their mean is known."""

import numpy as np
import torch

from fedjoint import Client, Examples, Problem, Task

CLIENTS, SIZE = 10, 2


class Parameters(torch.nn.Module):
    """Features are inputs times parameters, which start at zero."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(SIZE))

    def forward(self, x):
        return x * self.w


class Parabolas:
    """Client i minimises the mean of ``(scale_i * (w - target_i))^2``."""

    task_names = ("w",)
    sizes = np.ones(CLIENTS, np.int64)
    tasks = np.ones((CLIENTS, 1), bool)
    scale = 0.5 + torch.arange(CLIENTS)[:, None] / CLIENTS
    target = torch.randn(CLIENTS, SIZE, generator=torch.Generator().manual_seed(0))

    def client(self, index):
        x = self.scale[index].expand(1, SIZE)
        examples = Examples(x, {"w": x * self.target[index]})
        return Client(examples, examples, examples)


def optimum():
    square = Parabolas.scale**2
    return (square * Parabolas.target).sum(0) / square.sum()


def make(config):
    task = Task("w", "regression", SIZE, head=lambda features: torch.nn.Identity())
    return Problem([task], Parameters, Parabolas(), torch.zeros(1, SIZE))


STRATEGIES = """
from fedjoint.strategies.feddyn import FedDyn
from fedjoint.strategies.scaffold import Scaffold


class Refusing:
    '''Refuses to merge in round 20.'''

    def merge(self, updates):
        step = super().merge(updates)
        if updates.round == 20:
            raise ValueError("not this time")
        return step


class RefusingScaffold(Refusing, Scaffold):
    pass


class RefusingFedDyn(Refusing, FedDyn):
    pass
"""
