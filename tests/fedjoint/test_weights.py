"""``strategy.weight_by``: the merged step in closed form, where a client's step is known."""

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Client, Examples, Problem, Task
from fedjoint.config.load import check
from fedjoint.simulation import simulate

RATE = 0.1
TARGETS, SIZES = [1.0, 2.0, -3.0], [2, 4, 4]
HOLDS = np.array([[True, False], [True, False], [False, True]])


class Three:
    """Two clients of task ``a`` and one of ``b``, each with one target for all its examples."""

    task_names = ("a", "b")
    sizes = np.array(SIZES)
    tasks = HOLDS

    def client(self, index):
        name = self.task_names[int(HOLDS[index].argmax())]
        n = SIZES[index]
        examples = Examples(torch.ones(n, 1), {name: torch.full((n, 1), TARGETS[index])})
        none = examples.take(torch.arange(0))
        return Client(examples, none, none)


@pytest.mark.parametrize(
    ("weight_by", "weights"),
    [("examples", [0.2, 0.4, 0.4]), ("client", [1 / 3] * 3), ("task", [0.25, 0.25, 0.5])],
)
def test_the_step_is_the_mean_with_these_weights(tmp_path, weight_by, weights):
    tasks = [Task(n, "regression", 1, head=lambda f: nn.Identity()) for n in Three.task_names]
    problem = Problem(tasks, lambda: nn.Linear(1, 1, bias=False), Three(), torch.ones(1, 1))
    config = check(
        {
            "rounds": 1,
            "local": {"steps": 1, "batch_size": 8, "optimiser": {"lr": RATE}},
            "strategy": {"weight_by": weight_by},
            "engine": {"name": "inline"},
            "output": {"dir": str(tmp_path)},
        }
    )
    (start,) = problem.model(config).backbone.parameters()
    (end,) = simulate(config, problem).backbone.values()
    steps = 2 * RATE * (torch.tensor(TARGETS) - start.item())
    torch.testing.assert_close(end.item(), start.item() + float(torch.tensor(weights) @ steps))
