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
    """Three clients, each with one target for all its examples and tasks."""

    task_names = ("a", "b")
    sizes = np.array(SIZES)

    def __init__(self, holds):
        self.tasks = holds

    def client(self, index):
        n = SIZES[index]
        labels = {
            name: torch.full((n, 1), TARGETS[index])
            for name, has in zip(self.task_names, self.tasks[index], strict=True)
            if has
        }
        examples = Examples(torch.ones(n, 1), labels)
        none = examples.take(torch.arange(0))
        return Client(examples, none, none)


@pytest.mark.parametrize(
    ("weight_by", "weights"),
    [("examples", [0.2, 0.4, 0.4]), ("client", [1 / 3] * 3), ("task", [0.25, 0.25, 0.5])],
)
def test_the_step_is_the_mean_with_these_weights(tmp_path, weight_by, weights):
    check_step(tmp_path, HOLDS, {"weight_by": weight_by}, weights)


@pytest.mark.parametrize("clients", [64, 2], ids=["rows", "sums"])
@pytest.mark.parametrize("strategy", ["fedavg", "pcgrad"])
def test_tasks_pull_alike_where_clients_have_several(tmp_path, monkeypatch, strategy, clients):
    # Clients of a, of b, and of both: a third of the weight each is two thirds for each task.
    holds = np.array([[True, False], [False, True], [True, True]])
    monkeypatch.setattr(__name__ + ".TARGETS", [5.0, 4.0, 3.0])  # nothing to project
    settings = {"weight_by": "task", "name": strategy}
    check_step(tmp_path, holds, settings, [1 / 3] * 3, diagnostics={"clients": clients})


def check_step(tmp_path, holds, strategy, weights, **tables):
    """Check the step of one round against the mean of the clients' steps with ``weights``."""
    tasks = [Task(n, "regression", 1, head=lambda f: nn.Identity()) for n in Three.task_names]
    problem = Problem(tasks, lambda: nn.Linear(1, 1, bias=False), Three(holds), torch.ones(1, 1))
    config = check(
        {
            "rounds": 1,
            "local": {"steps": 1, "batch_size": 8, "optimiser": {"lr": RATE}},
            "strategy": strategy,
            **tables,
            "engine": {"name": "inline"},
            "output": {"dir": str(tmp_path)},
        }
    )
    (start,) = problem.model(config).backbone.parameters()
    (end,) = simulate(config, problem).backbone.values()
    # The losses of a client's tasks add up.
    steps = 2 * RATE * torch.from_numpy(holds.sum(1)) * (torch.tensor(TARGETS) - start.item())
    torch.testing.assert_close(end.item(), start.item() + float(torch.tensor(weights) @ steps))
