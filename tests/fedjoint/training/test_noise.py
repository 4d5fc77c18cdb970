"""What clients of different sizes draw does not depend on who trains beside them."""

import numpy as np
import pytest
import torch
from torch import nn

import fedjoint
from fedjoint.problem import Problem
from fedjoint.simulation import simulate

SIZES = np.array([5, 9, 18, 27])


class Uneven:
    task_names = ("a",)
    sizes, tasks = SIZES, np.ones((4, 1), bool)

    def client(self, index):
        x = torch.randn(int(SIZES[index]), 6, generator=torch.Generator().manual_seed(index))
        examples = fedjoint.Examples(x, {"a": (x[:, 0] > 0).long()})
        return fedjoint.Client(examples, examples, examples)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


def network(noise):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), noise, nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("strategy", "batch_size"),
    [("fedavg", 4), ("fedavg", 16), ("fedavg", 100), ("ditto", 4), ("apfl", 4)],
)
@pytest.mark.parametrize("noise", [nn.Dropout(0.5), Noise()], ids=["dropout", "noise"])
def test_blocks_change_no_noise(strategy, noise, batch_size, tmp_path):
    def run(blocks):
        task = fedjoint.Task("a", "multiclass", 2)
        problem = Problem([task], lambda: network(noise), Uneven(), torch.zeros(1, 6))
        tree = {
            "rounds": 2,
            "local": {"epochs": 2, "batch_size": batch_size},
            "strategy": strategy,
            "engine": {"name": "inline", "blocks": blocks},
            "output": {"dir": str(tmp_path)},
        }
        result = simulate(tree, problem)
        assert result.records[-1].fallback is None
        return result

    one, four = run(1), run(4)
    for name, tensor in one.backbone.items():
        torch.testing.assert_close(four.backbone[name], tensor, rtol=1e-4, atol=1e-5)
    assert four.metrics == one.metrics
