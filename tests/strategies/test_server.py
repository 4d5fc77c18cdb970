"""FedProx, FedNova, Scaffold, FedDyn, the personal methods and option checks."""

from dataclasses import replace

import pytest
import torch

from fedjoint.errors import UserError
from fedjoint.options import construct
from fedjoint.strategies.apfl import APFL
from fedjoint.strategies.ditto import Ditto
from fedjoint.strategies.fedavg import FedAvg
from fedjoint.strategies.fedbabu import FedBABU
from fedjoint.strategies.feddyn import FedDyn
from fedjoint.strategies.fedmgda import FedMGDA
from fedjoint.strategies.fednova import FedNova
from fedjoint.strategies.fedprox import FedProx
from fedjoint.strategies.fedrep import FedRep
from fedjoint.strategies.ifca import IFCA
from fedjoint.strategies.mgda import MGDA
from fedjoint.strategies.scaffold import Scaffold
from fedjoint.strategies.taskbalanced import TaskBalanced


def test_fednova_on_known_numbers(wrap):
    updates = replace(
        wrap(torch.tensor([[2.0, 0.0], [0.0, 8.0]])),
        weights=torch.tensor([0.25, 0.75]),
        steps=torch.tensor([1, 4]),
    )
    # tau = 0.25 * 1 + 0.75 * 4 = 3.25; normalised updates (2, 0) and (0, 2).
    expected = 3.25 * torch.tensor([0.25 * 2, 0.75 * 2])
    torch.testing.assert_close(FedNova().merge(updates), expected)


def test_fednova_with_equal_steps_is_fedavg(draw):
    updates = replace(draw(5), steps=torch.full((5,), 7))
    torch.testing.assert_close(FedNova().merge(updates), FedAvg().merge(updates))


@pytest.mark.parametrize("population", [0, 5, 8])
def test_scaffold_control_is_the_mean_of_the_clients_controls(draw, population):
    strategy, controls = Scaffold(population), torch.zeros(5, 30)
    assert strategy.broadcast(torch.ones(30))["control"].eq(0).all()
    seen = set()
    for seed, taking_part in enumerate([[0, 2], [1, 2, 4], [0], [3]]):
        updates = replace(draw(len(taking_part), seed=seed), clients=torch.tensor(taking_part))
        controls[taking_part] += updates.extras["control"]
        seen |= set(taking_part)
        torch.testing.assert_close(strategy.merge(updates), updates.matrix.mean(0))
        # Those who never took part have a control of zero, and count if they are known.
        expected = controls.sum(0) / (population or len(seen))
        torch.testing.assert_close(strategy.broadcast(torch.ones(30))["control"], expected)


def test_scaffold_rests_at_the_plain_mean_of_the_clients_objectives(wrap):
    # Clients minimise curvature_i / 2 * (x - target_i)^2; the sum is least at
    # sum_i curvature_i * target_i / sum_i curvature_i, whatever the weights, steps and rate.
    target, curvature = torch.tensor([[0.0], [3.0]]), torch.tensor([[2.0], [1.0]])
    rate, steps, strategy = 0.1, 5, Scaffold()
    x, own = torch.zeros(1), torch.zeros(2, 1)
    for round in range(1, 300):
        control = strategy.broadcast(x)["control"]
        y = x.expand(2, 1)
        for _ in range(steps):
            y = y - rate * (curvature * (y - target) - own + control)
        change = -control - (y - x) / (steps * rate)
        own = own + change
        updates = replace(
            wrap(y - x, round), weights=torch.tensor([0.9, 0.1]), extras={"control": change}
        )
        x = x + strategy.merge(updates)
    torch.testing.assert_close(x, torch.tensor([1.0]))


def test_feddyn_follows_the_paper(draw):
    alpha, clients = 0.1, 6
    strategy = FedDyn(alpha, population=clients)
    backbone, h = torch.zeros(30), torch.zeros(30)
    expected = backbone
    for seed in range(3):
        updates = draw(4, seed=seed)
        models = expected + updates.matrix
        h = h - alpha / clients * (models - expected).sum(0)
        expected = models.mean(0) - h / alpha
        backbone = backbone + strategy.merge(updates)
    torch.testing.assert_close(backbone, expected, rtol=1e-4, atol=1e-5)


def test_taskbalanced_counts_tasks_alike(wrap):
    updates = replace(
        wrap(torch.tensor([[3.0], [5.0], [10.0]])),
        tasks=torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool),
        weights=torch.tensor([0.5, 0.25, 0.25]),
    )
    # Task a: (0.5 * 3 + 0.25 * 5) / 0.75; task b: 10; nobody trained task c.
    expected = torch.tensor([((0.5 * 3 + 0.25 * 5) / 0.75 + 10) / 2])
    torch.testing.assert_close(TaskBalanced().merge(updates), expected)


@pytest.mark.parametrize(
    ("strategy", "method", "options"),
    [
        (FedProx(0.5), "prox", {"mu": 0.5}),
        (FedDyn(0.5), "feddyn", {"alpha": 0.5}),
        (FedRep(3), "rep", {"head_steps": 3}),
        (FedBABU(), "babu", {"tune": "head", "tune_at": "evaluation"}),
        (Ditto(2), "ditto", {"lam": 2.0}),
        (APFL(0.25), "apfl", {"alpha": 0.25, "adaptive": False}),
        (APFL(adaptive=True), "apfl", {"alpha": 0.5, "adaptive": True}),
    ],
    ids=lambda x: type(x).__name__,
)
def test_clients_are_told_their_method(strategy, method, options):
    assert (strategy.method, strategy.method_options) == (method, options)


@pytest.mark.parametrize(
    ("strategy", "option", "value", "said"),
    [
        (FedAvg, "server_lr", 0, "server_lr = 0: a number > 0"),
        (FedAvg, "server_lr", "fast", "server_lr = 'fast': a number > 0"),
        (FedAvg, "server_lr", float("nan"), "server_lr = nan"),
        (FedProx, "mu", -1, "mu = -1: a number >= 0"),
        (APFL, "alpha", 2, "alpha = 2: a number >= 0 and <= 1"),
        (APFL, "adaptive", 1, "adaptive = 1: true or false is allowed"),
        (IFCA, "clusters", 0, "clusters = 0: a whole number >= 1"),
        (IFCA, "clusters", True, "clusters = True"),
        (FedMGDA, "epsilon", 1.5, "epsilon = 1.5"),
        (
            MGDA,
            "level",
            "tasks",
            "option level 'tasks': allowed are client, task, task_mean; did you",
        ),
    ],
)
def test_bad_options_are_one_line(strategy, option, value, said):
    with pytest.raises(UserError) as error:
        construct("strategy", strategy, {option: value})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
