"""A strategy chooses who trains, how long and how fast, sees how they did, and reports."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch

import fedjoint
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.registry import load_object
from fedjoint.runs.directory import RunDir
from fedjoint.server.strategy import make_strategy
from fedjoint.simulation import resume, simulate
from fedjoint.strategies.fedavg import FedAvg


class PowerOfChoice(FedAvg):
    """The clients with the greatest losses of a few that are drawn (Cho et al. 2020)."""

    def select(self, round, clients):
        drawn = clients.rng.choice(len(clients), min(len(clients), 2 * clients.count), False)
        losses = np.nan_to_num(clients.losses[drawn], nan=np.inf)
        return clients.ids[drawn[np.argsort(-losses)[: clients.count]]]


class Curious(FedAvg):
    """Notes what it is shown."""

    seen: ClassVar[list] = []

    def select(self, round, clients):
        self.seen.append((round, clients))
        return clients.drawn

    def budget(self, round, clients):
        return fedjoint.Budget(steps=np.where(clients.ids % 2, 1, 3), rates=1 + clients.ids % 3)

    def merge(self, updates):
        self.report["mean steps"] = updates.steps.float().mean()
        self.report["evaluated"] = len(updates.evaluation)
        return super().merge(updates)


def settings(tmp_path, strategy, **more):
    return check(
        {
            "rounds": 5,
            "data": {"clients": 8, "examples_per_client": 40},
            "model": {"backbone": {"options": {"hidden": [4]}}},
            "engine": {"name": "inline"},
            "output": {"dir": str(tmp_path), "checkpoint_every": 2},
            "strategy": {"name": f"{__file__}:{strategy}", "fraction": 0.5},
            **more,
        }
    )


def test_power_of_choice_trains_those_with_the_greatest_losses(tmp_path):
    result = simulate(settings(tmp_path, "PowerOfChoice"))
    chosen = [set(record.clients.ids) for record in result.records]
    # All eight are drawn, and those without a loss yet come first.
    assert [len(ids) for ids in chosen] == [4] * 5 and len(chosen[0] | chosen[1]) == 8
    for ledger, ids in zip(ledgers(tmp_path), chosen[2:], strict=False):
        losses = dict(zip(ledger.clients.tolist(), ledger.losses.tolist(), strict=True))
        assert ids == set(sorted(losses, key=losses.get, reverse=True)[:4])
        assert all(np.isfinite(list(losses.values())))


def ledgers(tmp_path):
    """Return what PowerOfChoice knew before rounds 3, 4, 5, from runs that stop before these."""
    for rounds in (2, 3, 4):
        run = simulate(settings(tmp_path, "PowerOfChoice"), callbacks=[stop_after(rounds)])
        yield RunDir.open(run.path).latest().ledger


def stop_after(rounds):
    return lambda record: record.round == rounds


def test_a_run_that_was_stopped_chooses_as_one_that_was_not(tmp_path):
    whole = simulate(settings(tmp_path, "PowerOfChoice"))
    stopped = simulate(settings(tmp_path, "PowerOfChoice"), callbacks=[stop_after(3)])
    rest = resume(stopped.path)
    assert [r.clients.ids for r in rest.records] == [r.clients.ids for r in whole.records]
    for name, tensor in whole.backbone.items():
        assert torch.equal(tensor, rest.backbone[name])


def test_what_a_strategy_is_shown_and_what_it_gives(tmp_path):
    shown = load_object(f"{__file__}:Curious").seen
    shown.clear()
    result = simulate(settings(tmp_path, "Curious", local={"steps": 2}))
    uniform = simulate(settings(tmp_path, "Plain"))
    assert [r.clients.ids for r in result.records] == [r.clients.ids for r in uniform.records]
    assert [round for round, _ in shown] == [1, 2, 3, 4, 5]
    first, last = shown[0][1], shown[-1][1]
    assert np.isnan(first.losses).all() and not first.trained.any() and first.evaluation == {}
    assert last.tasks.shape == (8, len(last.task_names)) and last.count == 4
    known = [record.round for record in result.records[:4] if 0 in record.clients.ids]
    assert last.trained[0] == max(known, default=0)
    assert last.evaluation == result.records[3].evaluation
    for record in result.records:
        steps = np.where(np.array(record.clients.ids) % 2, 1, 3)
        assert record.steps.total == steps.sum()
        assert record.strategy["mean steps"] == steps.mean()
        assert record.strategy["evaluated"] == (3 if record.round > 1 else 0)
    kept = [json.loads(line) for line in (result.path / "metrics.jsonl").open()]
    assert [each["strategy"] for each in kept] == [record.strategy for record in result.records]


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_a_budget_is_what_those_clients_would_do_on_their_own(tmp_path, path):
    """Each client moves as in a run in which all have its steps and its rate."""

    def moves(strategy, steps, rate):
        local = {"steps": steps, "path": path, "optimiser": {"lr": rate}}
        simulate(settings(tmp_path, strategy, rounds=1, local=local))
        return load_object(f"{__file__}:Budgeted").updates[-1]

    both = moves("Budgeted", 2, 0.1)
    even = both.clients % 2 == 0
    for rows, alone in ((even, moves("Spy", 3, 0.05)), (~even, moves("Spy", 1, 0.1))):
        assert 0 < rows.sum() < len(rows) and torch.equal(both.clients, alone.clients)
        torch.testing.assert_close(both.matrix[rows], alone.matrix[rows])
        assert not torch.allclose(both.matrix[~rows], alone.matrix[~rows])


class Plain(FedAvg):
    """FedAvg, under a name of this file."""


class Spy(FedAvg):
    """Keeps the updates."""

    updates: ClassVar[list] = []

    def merge(self, updates):
        Budgeted.updates.append(updates)
        return super().merge(updates)


class Budgeted(Spy):
    """Even clients take three steps at half the rate, odd ones one."""

    def budget(self, round, clients):
        odd = clients.ids % 2 == 1
        return fedjoint.Budget(steps=np.where(odd, 1, 3), rates=np.where(odd, 1.0, 0.5))


def test_fednova_knows_the_rates_of_a_budget():
    """Twice the rate is twice the way: the normalised mean is that of equal rates."""
    one = updates_of(rates=None, matrix=torch.tensor([[2.0], [1.0]]))
    two = updates_of(rates=torch.tensor([2.0, 1.0]), matrix=torch.tensor([[4.0], [1.0]]))
    steps = []
    for updates in (one, two):
        strategy = make_strategy(check({"strategy": {"name": "fednova"}}))
        steps.append(strategy.merge(updates) / (updates.weights @ strategy.lengths(updates)))
    torch.testing.assert_close(*steps)


def updates_of(rates, matrix):
    return fedjoint.Updates(
        matrix=matrix,
        weights=torch.tensor([0.5, 0.5]),
        examples=torch.tensor([1, 1]),
        clients=torch.tensor([0, 1]),
        tasks=torch.ones(2, 1, dtype=torch.bool),
        task_names=("a",),
        steps=torch.tensor([3, 3]),
        backbone=torch.zeros(1),
        layout=Layout({"w": (1,)}),
        round=1,
        rates=rates,
    )


def nobody(clients):
    return clients.ids[:0]


WRONG = [
    ("select", nobody, "chose nobody"),
    ("select", lambda clients: [0, 0], "chose a client twice"),
    ("select", lambda clients: [0, 99], "chose client 99, which cannot train"),
    ("select", lambda clients: [-1], "chose client -1"),
    ("select", lambda clients: ["a"], "give whole numbers in a row"),
    ("select", lambda clients: [0.5], "give whole numbers in a row"),
    ("select", lambda clients: 3, "give whole numbers in a row"),
    ("select", lambda clients: clients.ids[:, None], "give whole numbers in a row"),
    ("select", lambda clients: clients.name, "has no attribute 'name'"),
    ("budget", lambda clients: 3, "not a fedjoint.Budget"),
    ("budget", lambda clients: fedjoint.Budget(steps=[1]), "give 4 whole numbers in a row"),
    ("budget", lambda clients: fedjoint.Budget(steps=[1, 1, 1, 0]), "steps has 0"),
    ("budget", lambda clients: fedjoint.Budget(steps=[1.0] * 4), "give 4 whole numbers in a row"),
    ("budget", lambda clients: fedjoint.Budget(rates=[1, 1, 1, np.nan]), "rates has nan"),
    ("budget", lambda clients: fedjoint.Budget(rates=[1, 1, 1, -1.0]), "rates has -1"),
    ("budget", lambda clients: fedjoint.Budget(rates="fast"), "give 4 numbers in a row"),
    ("report", {"a": "much"}, "report['a'] is str, not a number"),
    ("report", {"a": 10**400}, "report['a'] is int, not a number"),
    ("report", [1], "report is list, not a dict"),
]


@pytest.mark.parametrize(("what", "value", "says"), WRONG)
def test_a_wrong_choice_ends_the_run_by_name(tmp_path, monkeypatch, what, value, says):
    plugin = load_object(f"{__file__}:Wrong")
    monkeypatch.setattr(plugin, "wrong", (what, value))
    with pytest.raises(UserError, match="Wrong") as error:
        simulate(settings(tmp_path, "Wrong"))
    assert says in str(error.value) and "\n" not in str(error.value)


class Wrong(FedAvg):
    """Returns what it may not."""

    wrong: tuple = ("", None)

    def select(self, round, clients):
        what, value = self.wrong
        return value(clients) if what == "select" else clients.drawn

    def budget(self, round, clients):
        what, value = self.wrong
        return value(clients) if what == "budget" else None

    def merge(self, updates):
        what, value = self.wrong
        self.report = value if what == "report" else {}
        return super().merge(updates)
