"""Padding is seen by no client."""

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Client, Examples, Problem, Task
from fedjoint.config import check
from fedjoint.simulation import simulate


class Direction(nn.Module):
    """Undefined at zero."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        return self.layer(x / x.norm(dim=1, keepdim=True))


class Ragged:
    task_names = ("sum",)
    sizes = np.array([5, 9, 14])
    tasks = np.ones((3, 1), bool)

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        x = torch.randn(int(self.sizes[index]) + 6, 3, generator=g)
        examples = Examples(x, {"sum": x.sum(1, keepdim=True)})
        parts = torch.arange(len(x)).split([int(self.sizes[index]), 3, 3])
        return Client(*map(examples.take, parts))


def test_a_backbone_that_is_undefined_at_zero_trains_the_same_in_a_batch(tmp_path):
    problem = Problem([Task("sum", "regression", 1)], Direction, Ragged(), torch.ones(1, 3))
    results = [
        simulate(
            check(
                {
                    "rounds": 2,
                    "local": {"epochs": 1, "batch_size": 4, "sequential": sequential},
                    "engine": {"name": "inline"},
                    "output": {"dir": str(tmp_path)},
                }
            ),
            problem,
        )
        for sequential in (False, True)
    ]
    assert [r.records[-1]["clients"]["trained"] for r in results] == [3, 3]
    for name, tensor in results[1].backbone.items():
        torch.testing.assert_close(results[0].backbone[name], tensor, rtol=1e-4, atol=1e-6)
    batched, alone = (r.metrics["test"]["sum"] for r in results)
    assert batched == pytest.approx(alone, abs=1e-4)
