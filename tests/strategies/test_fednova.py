"""FedNova in whole runs: clients of different steps, momentum, pull and rate agree on the mean."""

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Client, Examples, Problem, Task, UserError
from fedjoint.config.load import check
from fedjoint.server.strategy import make_strategy
from fedjoint.simulation import simulate

SIZES, SLOPES = [1, 10], [1.0, -1.0]


class Opposed:
    """Two clients of one and of ten batches, whose losses are a straight line, up and down."""

    task_names = ("line",)
    sizes = np.array(SIZES)
    tasks = np.array([[True], [True]])

    def client(self, index):
        n = SIZES[index]
        examples = Examples(torch.ones(n, 1), {"line": torch.full((n, 1), SLOPES[index])})
        none = examples.take(torch.arange(0))
        return Client(examples, none, none)


def line(output, y):
    """A loss ``slope * output``, with the slope for a label."""
    known = ~y.isnan().any(-1)
    return torch.where(known, (output * y.nan_to_num()).mean(-1), 0), known


def settings(strategy="fednova", **local):
    optimiser = {"lr": 0.1, **local.pop("optimiser", {})}
    return {
        "rounds": 2,
        "local": {"epochs": 1, "batch_size": 1, "optimiser": optimiser, **local},
        "strategy": {"name": strategy, "weight_by": "client"},
        "engine": {"name": "inline"},
    }


def moved(tmp_path, tree):
    """Return by how much the one weight of the backbone moved."""
    task = Task("line", "regression", 1, head=lambda f: nn.Identity(), loss=line, metric="mae")
    problem = Problem([task], lambda: nn.Linear(1, 1, bias=False), Opposed(), torch.ones(1, 1))
    config = check({**tree, "output": {"dir": str(tmp_path)}})
    (start,) = problem.model(config).backbone.parameters()
    (end,) = simulate(config, problem).backbone.values()
    return end.item() - start.item()


WAYS = [
    {},
    {"optimiser": {"momentum": 0.5}},
    {"optimiser": {"momentum": 0.9}},
    {"method": "prox", "options": {"mu": 2.0}},
    {"method": "prox", "options": {"mu": 2.0}, "lr_scales": [2.0, 0.5], "lr_decay": 0.5},
    {"optimiser": {"momentum": 0.8}, "method": "prox", "options": {"mu": 0.1}},
    {"lr_scales": [1.0, 0.25], "optimiser": {"momentum": 0.5}},
]


@pytest.mark.parametrize("local", WAYS, ids=str)
def test_opposite_slopes_cancel_whatever_the_steps(tmp_path, local):
    assert moved(tmp_path, settings(**local)) == pytest.approx(0, abs=1e-6)
    assert abs(moved(tmp_path, settings("fedavg", **local))) > 0.1  # averaging favours the many


def test_one_slope_is_followed_as_far_as_clients_go(tmp_path, monkeypatch):
    """tau_eff is the mean of the lengths: with one slope for all, the step is FedAvg's."""
    monkeypatch.setattr(__name__ + ".SLOPES", [1.0, 1.0])
    local = {"optimiser": {"momentum": 0.5}, "lr_scales": [1.0, 0.5]}
    expected = moved(tmp_path, settings("fedavg", **local))
    assert moved(tmp_path, settings(**local)) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_is_refused_by_name(name):
    with pytest.raises(UserError, match=f"local.optimiser.name = '{name}': set it to 'sgd'"):
        make_strategy(check(settings(optimiser={"name": name})))


def test_a_method_that_says_nothing_of_its_steps_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from fedjoint import LocalMethod\n\n\nclass Mine(LocalMethod):\n    pass\n\n\n"
        "class Plain(LocalMethod):\n    mu = 0.0\n"
    )
    with pytest.raises(UserError, match="does not know how gradients add up"):
        make_strategy(check(settings(method=f"{tmp_path / 'mine.py'}:Mine")))
    make_strategy(check(settings(method=f"{tmp_path / 'mine.py'}:Plain")))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("rep", {"head_steps": 2}),
        ("babu", {}),
        ("ditto", {"lam": 0.1}),
        ("apfl", {"alpha": 0.5}),
        ("independent", {}),  # sends nothing to be divided
    ],
)
def test_methods_whose_shared_steps_are_plain_are_taken(method, options):
    make_strategy(check(settings(method=method, options=options)))
