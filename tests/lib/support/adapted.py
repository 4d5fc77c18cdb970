"""Three clients of unequal size, and backbones of which a part is frozen."""

import numpy as np
import torch
from torch import nn

import fedjoint

SIZES = np.array([10, 20, 30])


class Halves:
    task_names = ("side",)
    sizes, tasks = SIZES, np.ones((3, 1), bool)

    def client(self, index):
        x = torch.randn(int(SIZES[index]), 4, generator=torch.Generator().manual_seed(index))
        examples = fedjoint.Examples(x, {"side": (x[:, 0] > 0).long()})
        return fedjoint.Client(examples, examples, examples)


class Adapted(nn.Module):
    """A frozen layer, a constant, and what is trained: an adapter of rank 1 and a norm."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.base = nn.Linear(4, 16).requires_grad_(False)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16))
        self.register_buffer("order", torch.arange(16).flip(0))
        self.down, self.up = nn.Linear(4, 1), nn.Linear(1, 16)
        self.norm = nn.LayerNorm(16)
        with torch.no_grad():
            self.base.weight += shift

    def forward(self, x):
        features = self.base(x) * self.scale + self.up(self.down(x))
        return self.norm(features[:, self.order])


def problem(backbone=Adapted, head=None):
    task = fedjoint.Task("side", "multiclass", 2, head=head)
    return fedjoint.Problem([task], backbone, Halves(), torch.zeros(1, 4))


def make(config):
    return problem()


def settings(tmp_path, **more):
    local = {"epochs": 2, "batch_size": 30, "optimiser": {"lr": 0.1}}
    tree = {"rounds": 3, "engine": "inline", "output": {"dir": str(tmp_path)}}
    return {**tree, "local": local | more.pop("local", {}), **more}
