"""Targets are learnt about zero and of unit size, and measured in their own units."""

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint.config.load import check
from fedjoint.data.base import Client, Examples
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, with_settings
from fedjoint.simulation import resume, simulate
from fedjoint.training.targets import own_scale

PARTS = [24, 6, 10]


class Marks:
    """Clients with a target in the thousands, or what ``change`` makes of it."""

    task_names = ("mark",)

    def __init__(self, change=lambda y, train: y, clients=1):
        self.change = change
        self.sizes = np.full(clients, PARTS[0])
        self.tasks = np.ones((clients, 1), bool)

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        x = torch.randn(sum(PARTS), 3, generator=g)
        y = 5000 + 700 * (index + 1) * (x[:, :1] - 0.5 * x[:, 1:2])
        y[3] = torch.nan  # a missing label counts nowhere
        y = self.change(y.double(), y[: PARTS[0]].double()).float()
        examples = Examples(x, {"mark": y})
        return Client(*map(examples.take, torch.arange(len(x)).split(PARTS)))


def by_hand(y, train):
    known = train[~train.isnan()]
    return (y - known.mean()) / known.std(correction=0)


def train(tmp_path, data, *, rounds=5, settings=None, head=None, **task):
    task = Task("mark", "regression", 1, head=head, **task)
    problem = Problem([task], lambda: nn.Linear(3, 4), data, torch.zeros(1, 3))
    tree = {
        "rounds": rounds,
        "engine": "inline",
        "local": {"epochs": 2, "batch_size": 8, "optimiser": {"lr": 0.05}},
        "output": {"dir": str(tmp_path)},
    }
    return simulate(check(tree | (settings or {})), problem)


@pytest.mark.parametrize("clients", [1, 4])
def test_training_is_that_on_targets_standardised_by_hand(tmp_path, clients):
    own = train(tmp_path, Marks(clients=clients))
    hand = train(tmp_path, Marks(by_hand, clients), scale="none")
    for name, tensor in own.backbone.items():
        torch.testing.assert_close(tensor, hand.backbone[name])
    assert own.records[-1].loss == pytest.approx(hand.records[-1].loss, rel=1e-4)
    if clients == 1:  # the units of several clients differ
        assert own.metrics["test"] == pytest.approx(hand.metrics["test"], rel=1e-4)


def test_metrics_have_the_targets_units(tmp_path):
    own = train(tmp_path, Marks(), metric="rmse")
    hand = train(tmp_path, Marks(by_hand), metric="rmse", scale="none")
    known = Marks().client(0).train.y["mark"].double()
    deviation = known[~known.isnan()].std(correction=0)
    assert own.metrics["test"]["mark"] == pytest.approx(
        float(deviation) * hand.metrics["test"]["mark"], rel=1e-4
    )


def test_agreed_constants(tmp_path):
    agreed = train(tmp_path, Marks(clients=3), scale=(5000, 700.0))
    hand = train(tmp_path, Marks(lambda y, _: (y - 5000) / 700, 3), scale="none")
    for name, tensor in agreed.backbone.items():
        torch.testing.assert_close(tensor, hand.backbone[name])
    assert agreed.metrics["test"] == pytest.approx(hand.metrics["test"], rel=1e-4)
    told = {"data": {"target_scale": {"mark": [5000, [700]]}}}
    for name, tensor in train(tmp_path, Marks(clients=3), settings=told).backbone.items():
        assert tensor.equal(agreed.backbone[name])


@pytest.mark.parametrize("method", ["ditto", "apfl", "fedrep", "fedbabu", "scaffold"])
def test_every_method_learns_targets_in_the_thousands(tmp_path, method):
    settings = {"strategy": method, "local": {"epochs": 4, "optimiser": {"lr": 0.05}}}
    result = train(tmp_path, Marks(clients=4), rounds=12, settings=settings)
    assert result.metrics["test"]["mark"] > 0.8


def test_a_constant_target_is_predicted(tmp_path):
    result = train(tmp_path, Marks(lambda y, _: torch.full_like(y, 5000)), rounds=12, metric="rmse")
    assert result.metrics["test"]["mark"] < 1


class Halve(nn.Module):
    """A loss of the user's own, which the units matter to."""

    def forward(self, output, y):
        return ((output - y.nan_to_num()) ** 2).mean(1) / 2, ~y.isnan().any(1)


@pytest.mark.parametrize(
    "task",
    [{"loss": Halve()}, {"head": lambda k: nn.Flatten()}],
    ids=["own loss", "head without parameters"],
)
def test_targets_are_learnt_as_they_are_where_units_matter(tmp_path, task):
    def small(y, _):
        return (y - 5000) / 700 + 1

    class Narrow(nn.Linear):
        def __init__(self):
            super().__init__(3, 1)

    data = Marks(small)
    tree = check({"rounds": 3, "engine": "inline", "output": {"dir": str(tmp_path)}})
    found = []
    for scale in (None, "none"):
        problem = Problem(
            [Task("mark", "regression", 1, scale=scale, **task)], Narrow, data, torch.zeros(1, 3)
        )
        found.append(simulate(tree, problem).backbone)
    assert all(tensor.equal(found[1][name]) for name, tensor in found[0].items())


def test_the_scale_of_a_client_is_that_of_its_examples_alone():
    y = torch.tensor([[1.0, 10], [3, 10], [torch.nan, 0], [5, 10]])
    scale = own_scale(y)
    assert scale.mean.tolist() == [3, 10]
    assert scale.deviation.tolist() == pytest.approx([np.std([1, 3, 5]), 1])
    empty = own_scale(torch.full((2, 2), torch.nan))
    assert empty.mean.tolist() == [0, 0] and empty.deviation.tolist() == [1, 1]


@pytest.mark.parametrize(
    "scale", ["ours", 3, (1,), (1, 2, 3), (0, 0), (0, -1), (0, float("inf")), ("a", 1), ([1, 2], 1)]
)
def test_a_scale_that_is_none(scale):
    with pytest.raises(UserError, match=r"the scale of task 'mark' is .*: give 'own', 'none' or"):
        Task("mark", "regression", 1, scale=scale)


def test_scales_that_do_not_fit_their_tasks():
    with pytest.raises(UserError, match="'kind' is multiclass: only a regression's targets"):
        Task("kind", "multiclass", 2, scale="own")
    config = check({"data": {"target_scale": {"marks": "own"}}})
    with pytest.raises(UserError, match=r"data.target_scale 'marks'.*did you mean 'mark'"):
        with_settings([Task("mark", "regression", 1)], config)


def test_a_resumed_run_has_the_same_scales(tmp_path):
    task = Task("mark", "regression", 1)
    problem = Problem([task], lambda: nn.Linear(3, 4), Marks(clients=3), torch.zeros(1, 3))
    tree = {"rounds": 4, "engine": "inline", "output": {"dir": str(tmp_path)}}
    config = check(tree | {"local": {"optimiser": {"lr": 0.05}}})
    whole = simulate(config, problem)
    stopped = simulate(config, problem, callbacks=[lambda record: record.round == 2])
    rest = resume(stopped.path, problem)
    assert len(stopped.records) == 2 and rest.metrics == whole.metrics
    assert all(tensor.equal(rest.backbone[name]) for name, tensor in whole.backbone.items())
