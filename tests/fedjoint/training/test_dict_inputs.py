"""A model of two inputs is the model of both side by side, to the bit."""

import numpy as np
import pytest
import torch
from support.small import config
from torch import nn

import fedjoint
from fedjoint import Client, Examples, Problem, Task

WIDTHS = (3, 2)


class Both(nn.Module):
    """Reads inputs in the order of the dict, as a model may."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2))

    def forward(self, x):
        return self.body(torch.cat(list(x.values()), 1) if isinstance(x, dict) else x)


class Sides:
    """Three clients of unequal sizes; the second has its inputs in another order."""

    task_names = ("side", "sum")
    sizes = np.array([12, 17, 5])
    tasks = np.array([[True, True], [True, True], [False, True]])

    def __init__(self, apart):
        self.apart = apart

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        n = int(self.sizes[index])
        x = torch.randn(n + 8, 5, generator=g)
        y = {"side": (x[:, 0] > x[:, 4]).long(), "sum": x.sum(1, keepdim=True)}
        y["sum"][::3] = torch.nan
        if not self.tasks[index, 0]:
            del y["side"]
        if self.apart:
            left, right = x.split(WIDTHS, 1)
            x = {"left": left, "right": right}
            if index == 1:
                x = dict(reversed(x.items()))
        examples = Examples(x, y)
        return Client(*map(examples.take, torch.arange(n + 8).split([n, 4, 4])))


def problem(apart):
    tasks = [Task("side", "multiclass", 2), Task("sum", "regression", 1)]
    left, right = torch.zeros(1, 5).split(WIDTHS, 1)
    example = {"left": left, "right": right} if apart else torch.zeros(1, 5)
    central = Sides(apart).client(0).test
    return Problem(tasks, Both, Sides(apart), example, central)


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_two_inputs_are_as_one(tmp_path, path):
    local = {"epochs": 2, "batch_size": 5, "path": path}
    diagnostics = {"within_every": 1, "clients": 3}
    settings = config(tmp_path, local=local, diagnostics=diagnostics)
    apart, together = (fedjoint.simulate(settings, problem(each)) for each in (True, False))
    for name, tensor in together.backbone.items():
        assert torch.equal(apart.backbone[name], tensor)
    assert apart.metrics == together.metrics
    assert apart.records[-1].diagnostics == together.records[-1].diagnostics
