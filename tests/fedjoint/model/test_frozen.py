"""Which buffers are constants, and what tells two sets of frozen weights apart."""

import pytest
import torch
from torch import nn

from fedjoint.model.frozen import digest, moving_buffers


class Counting(nn.Module):
    """One buffer that passes change somehow, and one that they leave alone, in a module below."""

    def __init__(self, change):
        super().__init__()
        self.register_buffer("count", torch.zeros(2))
        self.below = nn.Module()
        self.below.register_buffer("constant", torch.ones(2))
        self.change = change

    def forward(self, x):
        if self.training:
            self.change(self)
        return x * self.below.constant


def fails(module):
    raise ValueError


def assign(module):
    module.count = module.count * 1


@pytest.mark.parametrize(
    ("change", "moving"),
    [
        (lambda m: None, set()),
        (lambda m: m.count.add_(1), {"count"}),
        (lambda m: m.count.mul_(0), {"count"}),  # its numbers are the same
        (lambda m: m.count.data.add_(1), {"count"}),
        (assign, {"count"}),
        (fails, {"count", "below.constant"}),  # who knows
    ],
)
def test_buffers_that_a_pass_changes(change, moving):
    module = Counting(change)
    assert moving_buffers(module, torch.zeros(2, 2)) == moving
    assert module.count.tolist() == [0, 0] and module.count._version == 0


@pytest.mark.parametrize(
    ("norm", "moving"),
    [
        (nn.BatchNorm1d(2), {"running_mean", "running_var", "num_batches_tracked"}),
        (nn.BatchNorm1d(2).requires_grad_(False), {"running_mean", "running_var"}),
        (nn.InstanceNorm1d(2, track_running_stats=True), {"running_mean"}),
    ],
    ids=["batch norm", "frozen batch norm", "instance norm"],
)
def test_statistics_move_whatever_the_example(norm, moving):
    assert moving <= moving_buffers(norm, torch.zeros(2, 2, 3))


WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)}


@pytest.mark.parametrize(
    "other",
    [
        WEIGHTS | {"a": WEIGHTS["a"].view(3, 2)},
        WEIGHTS | {"a": WEIGHTS["a"] + 1e-6},
        WEIGHTS | {"b": torch.tensor(1, dtype=torch.int32)},
        {"a": WEIGHTS["a"], "c": WEIGHTS["b"]},
        {"a": WEIGHTS["a"]},
        {},
    ],
)
def test_other_weights_have_another_digest(other):
    assert digest(WEIGHTS) != digest(other)
    assert digest(WEIGHTS) == digest({"b": torch.tensor(1), "a": WEIGHTS["a"].t().contiguous().t()})
