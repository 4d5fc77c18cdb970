"""Padding is seen by no client, and labels are checked where they come in."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Client, Examples, Problem, Task
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.model.tree import fitted
from fedjoint.simulation import simulate
from fedjoint.training import cohort
from fedjoint.training.cohort import gather
from fedjoint.training.minibatches import schedule


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
                    "local": {"epochs": 1, "batch_size": 4, "path": path},
                    "engine": {"name": "inline"},
                    "output": {"dir": str(tmp_path)},
                }
            ),
            problem,
        )
        for path in ("batched", "sequential")
    ]
    assert [r.records[-1].clients.trained for r in results] == [3, 3]
    for name, tensor in results[1].backbone.items():
        torch.testing.assert_close(results[0].backbone[name], tensor, rtol=1e-4, atol=1e-6)
    batched, alone = (r.metrics["test"]["sum"] for r in results)
    assert batched == pytest.approx(alone, abs=1e-4)


def stacked(data, task):
    place, client = np.array([0]), np.array([17])

    def fit(x, who):
        return fitted(x, torch.zeros(1, 2), who)

    return gather(data, [task], fit, place, client, [None], torch.device("cpu"))


INPUTS = {
    "another type": (
        torch.zeros(3, 2).double(),
        "are torch.float64 [2], and the model",
    ),
    "whole numbers": (torch.zeros(3, 2).to(torch.uint8), "are torch.uint8 [2], and the model"),
    "too wide": (torch.zeros(3, 5), "are torch.float32 [5], and the model takes torch.float32 [2]"),
    "undefined": (torch.tensor([[0, 0], [0, torch.nan]]), "example 1 is not finite; clean its"),
    "infinite": (torch.tensor([[torch.inf, 0]]), "example 0 is not finite; clean its data"),
}


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("what", INPUTS)
def test_inputs_that_do_not_fit_are_named_by_client_and_split(what, split):
    x, words = INPUTS[what]
    good = Examples(torch.zeros(1, 2), {"sum": torch.zeros(1, dtype=torch.int64)})
    bad = Examples(x, {"sum": torch.zeros(len(x), dtype=torch.int64)})

    class Wrong:
        tasks = np.ones((1, 1), bool)

        def client(self, index):
            return Client(**{"train": good, "valid": good, "test": good, split: bad})

    with pytest.raises(UserError, match=re.escape(words)) as error:
        stacked(Wrong(), Task("sum", "multiclass", 2))
    assert str(error.value).startswith(f"client 17, {split} inputs")


@pytest.mark.parametrize(
    ("task", "labels", "words"),
    [
        (Task("sum", "multiclass", 2), torch.tensor([0, 1, 2]), "class 2 of 2"),
        (Task("sum", "multiclass", 2), torch.zeros(3), "float32 [3], a multiclass task needs"),
        (Task("sum", "regression", 1), torch.zeros(3), "[3], a regression task needs"),
        (Task("sum", "multilabel", 2), torch.zeros(3, 3), "needs torch.float32 [3, 2]"),
        (Task("total", "regression", 1), torch.zeros(3, 1), "no labels; its examples have those"),
        (Task("sum", "regression", 1), torch.full((3, 1), torch.inf), "a label is infinite"),
    ],
)
def test_labels_that_do_not_fit_are_named_by_client_and_task(task, labels, words):
    class Wrong:
        tasks = np.ones((1, 1), bool)

        def client(self, index):
            examples = Examples(torch.zeros(3, 2), {"sum": labels})
            return Client(examples, examples, examples)

    with pytest.raises(UserError, match=re.escape(words)) as error:
        stacked(Wrong(), task)
    assert str(error.value).startswith(f"client 17, task {task.name!r}: ")


def test_a_batch_is_no_longer_than_the_longest_client():
    sizes, clients = np.array([5, 3]), np.arange(2)
    for budget in ({"epochs": 2}, {"steps": 2}):
        wide, exact = (schedule(0, 1, clients, sizes, batch_size=b, **budget) for b in (1000, 5))
        assert wide.index.shape == (2, 2, 5)
        assert np.array_equal(wide.index, exact.index) and np.array_equal(wide.mask, exact.mask)


@pytest.mark.parametrize("at_once", [1, 200, 1 << 20])  # bytes: a step, some, all of them
@pytest.mark.parametrize("named", [False, True])
def test_steps_taken_at_once_are_those_taken_one_by_one(monkeypatch, at_once, named):
    monkeypatch.setattr(cohort, "_AT_ONCE", at_once)
    x, y = torch.randn(3, 6, 2), {"a": torch.arange(18).view(3, 6)}
    stack = cohort.Stack({"left": x, "right": -x} if named else x, y, np.full(3, 5))
    index = torch.randint(6, (4, 3, 2)) + 6 * torch.arange(3)[:, None]
    counts, lengths = [3, 3, 2, 1], [2, 2, 2, 1]
    found = list(stack.in_turn(index, counts, lengths))
    assert len(found) == 4
    for (inputs, labels), rows, count, few in zip(found, index, counts, lengths, strict=True):
        expected, own = stack.take(rows[:count, :few])
        torch.testing.assert_close(inputs, expected, rtol=0, atol=0)
        torch.testing.assert_close(labels, own, rtol=0, atol=0)
