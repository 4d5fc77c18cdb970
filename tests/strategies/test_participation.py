"""Clients that take part now and then, late or no more: the papers' loops over all clients."""

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Client, Examples, Problem, Task
from fedjoint.config.load import check
from fedjoint.server.strategy import circumstances, make_strategy
from fedjoint.simulation import simulate
from fedjoint.strategies.feddyn import FedDyn
from fedjoint.strategies.scaffold import Scaffold

RATE, STEPS, ROUNDS = 0.05, 4, 12
TARGETS = np.linspace(-2, 3, 10)
CURVATURE = np.linspace(1, 3, 10)  # the length of a client's inputs


class Quadratics:
    """Ten clients whose losses are ``curvature^2 * (w - target)^2``."""

    task_names = ("t",)
    sizes = np.full(10, 2)
    tasks = np.ones((10, 1), bool)

    def client(self, index):
        x = torch.full((2, 1), float(CURVATURE[index]))
        examples = Examples(x, {"t": x * float(TARGETS[index])})
        none = examples.take(torch.arange(0))
        return Client(examples, none, none)


def run(tmp_path, strategy, momentum=0.0, **options):
    """Return the first and the last weight of a run, and who took part in its rounds."""
    task = Task("t", "regression", 1, head=lambda f: nn.Identity())
    problem = Problem([task], lambda: nn.Linear(1, 1, bias=False), Quadratics(), torch.ones(1, 1))
    config = check(
        {
            "rounds": ROUNDS,
            "local": {
                "steps": STEPS,
                "batch_size": 2,
                "optimiser": {"lr": RATE, "momentum": momentum},
            },
            "strategy": {"name": strategy, "fraction": 0.3, "options": options},
            "engine": {"name": "inline"},
            "output": {"dir": str(tmp_path)},
        }
    )
    (start,) = problem.model(config).backbone.parameters()
    result = simulate(config, problem)
    (end,) = result.backbone.values()
    return start.item(), end.item(), [record.clients.ids for record in result.records]


def descend(w, client, momentum=0.0, more=lambda w: 0.0):
    """Take the local steps of a client from ``w``; return where it ends, and every gradient."""
    buffer, gradients = 0.0, []
    for _ in range(STEPS):
        gradients.append(2 * CURVATURE[client] ** 2 * (w - TARGETS[client]))
        buffer = momentum * buffer + gradients[-1] + more(w)
        w = w - RATE * buffer
    return w, gradients


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_scaffold_of_three_in_ten(tmp_path, momentum):
    """Karimireddy et al., 2020, algorithm 1, option II: c is the mean over all ten clients."""
    w, found, taking_part = run(tmp_path, "scaffold", momentum)
    c, own = 0.0, np.zeros(10)
    share = np.array([sum(momentum**j for j in range(STEPS - k)) for k in range(STEPS)])
    for ids in taking_part:
        ends, change = [], 0.0
        for i in ids:
            end, gradients = descend(w, i, momentum, lambda _, shift=c - own[i]: shift)
            ends.append(end)
            new = share @ gradients / share.sum()  # the paper's c_i: a mean of the gradients
            change, own[i] = change + new - own[i], new
        w, c = np.mean(ends), c + change / 10
    assert found == pytest.approx(w, rel=1e-4)


def test_feddyn_of_three_in_ten(tmp_path):
    """Acar et al., 2021, algorithm 1: h is a mean over all ten clients."""
    alpha = 0.5
    w, found, taking_part = run(tmp_path, "feddyn", alpha=alpha)
    h, dual = 0.0, np.zeros(10)
    for ids in taking_part:
        ends = []
        for i in ids:
            end, _ = descend(w, i, more=lambda v, i=i, w=w: alpha * (v - w) - dual[i])
            ends.append(end)
            dual[i] -= alpha * (end - w)
        h -= alpha / 10 * sum(end - w for end in ends)
        w = np.mean(ends) - h / alpha
    assert found == pytest.approx(w, rel=1e-4)


@pytest.mark.parametrize("rule", [Scaffold, FedDyn])
def test_the_population_is_who_is_known_and_who_has_gone(rule):
    alone = rule()
    assert alone.population == 1
    alone.state["seen"] = torch.tensor([2, 7, 9])
    assert alone.population == 3  # outside a run
    strategy = make_strategy(check({"strategy": {"name": rule.__name__.lower()}}))
    strategy.state["seen"] = torch.tensor([2, 7, 9])
    # 9 and its node have gone.
    circumstances(strategy).clients = np.array([2, 5, 7])
    assert strategy.population == 4
    strategy.given = 20
    assert strategy.population == 20
