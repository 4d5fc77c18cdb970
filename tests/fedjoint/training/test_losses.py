"""What a round reports as its loss, where labels are missing."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Client, Examples, Problem, Task
from fedjoint.config.load import check
from fedjoint.model.losses.cross_entropy import CrossEntropy
from fedjoint.simulation import simulate


class Sparse:
    """Two tasks of three classes; one example in twenty has a label of ``rare``."""

    task_names = ("common", "rare")
    sizes = np.array([100, 60])
    tasks = np.ones((2, 2), bool)

    def client(self, index):
        size = int(self.sizes[index])
        g = torch.Generator().manual_seed(index)
        labels = torch.randint(3, (size,), generator=g)
        rare = torch.where(torch.arange(size) % 20 == 0, labels, -1)
        examples = Examples(torch.randn(size, 4, generator=g), {"common": labels, "rare": rare})
        none = examples.take(torch.arange(0))
        return Client(examples, none, none)


def flat_head(features):
    head = nn.Linear(features, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


@pytest.mark.parametrize("path", ["batched", "sequential"])
@pytest.mark.parametrize("balance", ["fixed", "gradnorm", "dwa"])
def test_minibatches_without_a_label_do_not_count(tmp_path, path, balance):
    tasks = [Task(name, "multiclass", 3, head=flat_head) for name in Sparse.task_names]
    problem = Problem(tasks, lambda: nn.Linear(4, 4), Sparse(), torch.zeros(1, 4))
    tree = {
        "rounds": 2,
        "local": {
            "epochs": 1,
            "batch_size": 8,
            "path": path,
            "optimiser": {"lr": 1e-9},
        },
        "balance": {"name": balance},
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path)},
    }
    for record in simulate(check(tree), problem).records:
        # Zero logits: every class has a third, whatever the labels.
        assert record.loss == pytest.approx({"common": math.log(3), "rare": math.log(3)})


class Doubled(CrossEntropy):
    """Extends a loss whose sum has a way of its own."""

    def at(self, output, y):
        return 2 * super().at(output, y)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(),
        CrossEntropy(label_smoothing=0.2),
        CrossEntropy(class_weights=[1.0, 2.0, 0.5]),
        CrossEntropy(label_smoothing=0.2, class_weights=[1.0, 2.0, 0.5]),
        Doubled(),
    ],
)
@pytest.mark.parametrize("shape", [(7,), (7, 4)], ids=["classes", "of a sequence"])
def test_the_sum_is_that_over_examples_with_labels(loss, shape):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(*shape, 3, generator=generator)
    y = torch.randint(-1, 3, shape, generator=generator)
    values, known = loss(output, y)
    total, count = loss.summed(output, y)
    torch.testing.assert_close(total, values.sum())
    assert count == known.sum()
    nothing, none = loss.summed(output, torch.full_like(y, -1))
    assert nothing == 0 and none == 0
