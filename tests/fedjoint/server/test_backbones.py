"""Several backbones in a run, against runs of their own of those who have each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import small
from support.backbones import named
from support.fleet import SETTINGS, Fleet, forging, honest, send

import fedjoint
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server
from fedjoint.problem import build_problem
from fedjoint.protocol import wire
from fedjoint.protocol.requests import EVALUATE, TRAIN
from fedjoint.runs.directory import RunDir
from fedjoint.server.serve import serve
from fedjoint.server.strategy import checked_merge
from fedjoint.simulation import resume, simulate

WAYS = {"rows": {}, "sums": {"diagnostics": {"clients": 2}}}


def backbones(result):
    """Return a run's backbones, each as a dict of tensors by name."""
    final = RunDir.open(result.path).final()
    count = max(map(len, final.backbones.values()), default=1)
    return [final.backbone_of(result.path, number) for number in range(count)]


def alike(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **tolerance)


def only(config, wanted):
    """Return the problem in which the other clients have no examples."""
    problem = build_problem(config)
    tasks, sizes = problem.data.tasks, problem.data.sizes
    own = np.array([wanted(client, row) for client, row in enumerate(tasks)])
    problem.data.sizes = np.where(own, sizes, 0)
    return problem


@pytest.mark.parametrize("way", WAYS)
def test_each_backbone_is_that_of_a_run_of_those_who_have_it(tmp_path, way):
    whole = simulate(small.config(tmp_path, strategy=named(tmp_path, "PerTask"), **WAYS[way]))
    for has, found in zip((True, False), backbones(whole), strict=True):
        config = small.config(tmp_path)
        own = simulate(config, only(config, lambda _, tasks, has=has: tasks[0] == has))
        alike(found, own.backbone, rtol=1e-4, atol=1e-5)
        for task, value in own.metrics["test"].items():
            if value is not None:
                assert whole.metrics["test"][task] == pytest.approx(value, abs=1e-3)
    assert whole.records[-1].strategy["backbones"] == 2


def test_blocks_of_means_have_one_backbone_each(tmp_path):
    """By parity: clients with the same tasks, of one block, have different ones."""
    tasks = {"data": {"clients": 8, "test_fraction": 0.6, "task_mix": [["digit"]]}}
    found = []
    for way in WAYS.values():
        text = named(tmp_path, "Parity")
        path = tmp_path / "several.py"
        if way:
            path.write_text(path.read_text().replace("per_client = True", "per_client = False"))
        more = tasks | way | {"strategy": text, "engine": {"name": "inline", "blocks": 1}}
        found.append(backbones(simulate(small.config(tmp_path, **more))))
    for rows, sums in zip(*found, strict=True):
        alike(sums, rows, rtol=1e-4, atol=1e-6)


def test_clients_are_sent_one_and_those_who_choose_all(tmp_path):
    down = {}
    for strategy in ("fedavg", "ifca", named(tmp_path, "Parity")):
        name = strategy if isinstance(strategy, str) else "Parity"
        down[name] = simulate(small.config(tmp_path, rounds=1, strategy=strategy)).records[0].bytes
    assert down["Parity"] == down["fedavg"]
    assert down["ifca"].up == down["fedavg"].up and down["ifca"].down == 2 * down["fedavg"].down


def test_backbones_come_and_go(tmp_path):
    config = small.config(tmp_path, strategy=named(tmp_path, "Later"))
    counts = [record.strategy.get("backbones") for record in simulate(config).records]
    assert counts == [2, 2, None, None]
    # In rounds 2 and 3 odd clients go on by themselves from where all were after round 1.
    (last,) = backbones(simulate(config.model_copy(update={"rounds": 3})))
    odd = simulate(small.config(tmp_path, rounds=3, strategy=named(tmp_path, "OddLater")))
    alike(last, odd.backbone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "strategy", ["Parity", "Later", "ifca", "cfl", "fedmerge", "fedhca2", "matu"]
)
def test_resumed_is_never_stopped(tmp_path, strategy):
    options = {"still": 0.9, "across": 1.0, "moving": 0.0} if strategy == "cfl" else {}
    name = strategy if strategy.islower() else named(tmp_path, strategy)["name"]
    config = small.config(tmp_path, strategy={"name": name, "options": options})
    whole = simulate(config)
    for rounds in (1, 2, 3):
        half = simulate(config.model_copy(update={"rounds": rounds}))
        rest = resume(half.path, rounds=4)
        for found, expected in zip(backbones(rest), backbones(whole), strict=True):
            alike(found, expected, rtol=0, atol=0)
        assert rest.metrics == whole.metrics


def test_the_best_round_has_its_backbones(tmp_path):
    hot = {"local": {"epochs": 4, "optimiser": {"lr": 0.4, "momentum": 0.5}}, "rounds": 6}
    output = {"dir": str(tmp_path), "keep_best": True}
    strategy = named(tmp_path, "Parity")
    result = simulate(small.config(tmp_path, **hot, output=output, strategy=strategy))
    best = RunDir.open(result.path).best()
    assert best.round < 6  # else nothing is shown
    short = simulate(small.config(tmp_path, **hot | {"rounds": best.round}, strategy=strategy))
    for name, tensor in RunDir.open(short.path).final().backbones.items():
        assert torch.equal(best.backbones[name], tensor)


# On nodes of their own


class Watched(Fleet):
    """Keeps how many backbones every message has to every node."""

    def __init__(self, nodes):
        super().__init__(nodes)
        self.sent = set()

    def send_and_receive(self, messages, *, timeout=None):
        for message in messages:
            kind, node = message.metadata.message_type, message.metadata.dst_node_id
            if kind in (TRAIN, EVALUATE):
                arrays = wire.arrays(message, "backbone").values()
                self.sent |= {(kind, node, array.shape[0], array.ndim) for array in arrays}
        yield from super().send_and_receive(messages, timeout=timeout)


def deployed(tmp_path, strategy, **change):
    """Serve three nodes with clients 0 and 2, 1, and 3, one of which may forge replies."""
    be_server()
    config = check(SETTINGS | {"strategy": strategy, "rounds": 4})
    nodes = {5: [0, 2], 6: [1], 7: [3]}
    own = {n: honest(config, clients, f"node {n}") for n, clients in nodes.items()}
    for forge in change.values():
        own[7] = forging(own[7], TRAIN, forge)
    fleet, run = Watched(own), RunDir.create(tmp_path, "run", config)
    serve(fleet, config, run, deployed=True)
    return fleet, run


@pytest.mark.parametrize(("strategy", "counts"), [("Parity", (1, 1)), ("ifca", (2, 2))])
def test_a_node_is_sent_what_its_clients_need(tmp_path, strategy, counts):
    settings = {"name": "ifca"} if strategy == "ifca" else named(tmp_path, strategy)
    fleet, run = deployed(tmp_path, settings)
    # Weights and biases of a layer, each of so many backbones.
    first = {(kind, node): count for kind, node, count, _ in fleet.sent for count in [count]}
    assert set(first.values()) == set(counts)
    assert {ndim for *_, ndim in fleet.sent} == {2, 3}
    assert all(record.kept is None for record in run.records())


@pytest.mark.parametrize(
    ("strategy", "claim"),
    [("Parity", lambda r: r + 1), ("ifca", lambda r: r * 0 + 7), ("ifca", lambda r: r * 0 - 1)],
)
def test_who_claims_another_backbone_is_not_merged(tmp_path, strategy, claim):
    settings = {"name": "ifca"} if strategy == "ifca" else named(tmp_path, strategy)
    _, run = deployed(tmp_path, settings, claim=send("report", "received", claim))
    for record in run.records()[:3]:
        assert record.clients.trained == 3
        (failed,) = record.clients.failed
        assert failed.node == 7 and failed.fault
    assert [record.clients.asked for record in run.records()] == [4, 4, 4, 3]


# What a plug-in may return


def strategy(first=None, receives=None, merge=None):
    class Own(fedjoint.JointStrategy):
        def first_backbones(self, backbone):
            return backbone.repeat(2, 1) if first is None else first(backbone)

        def receives(self, round, clients, tasks):
            return clients % 2 if receives is None else receives(clients)

        def merge(self, updates):
            return updates.means() if merge is None else merge(updates)

    return Own()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"first": lambda b: b}, "first_backbones returned"),
        ({"first": lambda b: b[None] + 1}, "returned one other than it got: set model.initial"),
        ({"first": lambda b: b.repeat(2, 1) / 0}, "first_backbones returned"),
        ({"first": lambda b: b.nothing}, "first_backbones: AttributeError: 'Tensor' object"),
        ({"receives": lambda c: c.float()}, r"receives returned something else than \(.*,\) int64"),
        ({"receives": lambda c: c * 0 + 2}, "from -1 and below 2"),
        ({"receives": lambda c: c[1:]}, "receives returned something else"),
        ({"receives": lambda c: c.nothing}, "receives: AttributeError: 'Tensor' object"),
    ],
)
def test_what_is_wrong_is_one_line_before_the_first_round(tmp_path, monkeypatch, wrong, line):
    own = strategy(**wrong)
    monkeypatch.setattr("fedjoint.strategies.fedavg.FedAvg.first_backbones", own.first_backbones)
    monkeypatch.setattr("fedjoint.strategies.fedavg.FedAvg.receives", own.receives)
    with pytest.raises(UserError, match=line) as error:
        simulate(small.config(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        (lambda u: u.mean(), r"merge returned \(30,\), not \(2, 30\)"),
        (lambda u: u.matrix, r"merge returned \(4, 30\), not \(2, 30\)"),
        (lambda u: fedjoint.Steps(torch.tensor([0, 2]), u.means()), "of is not"),
        (lambda u: fedjoint.Steps(torch.tensor([0.0]), u.means()[:1]), "of is not"),
        (lambda u: fedjoint.Steps(torch.tensor([0]), u.means()), r"\(2, 30\), not \(1, 30\)"),
        (lambda u: u.means() * torch.nan, "not finite"),
    ],
)
def test_a_merge_that_returns_something_else_is_refused(returned, line):
    one = torch.zeros(4, dtype=torch.int64)
    updates = fedjoint.Updates(
        matrix=torch.randn(4, 30, generator=torch.Generator().manual_seed(0)),
        weights=torch.full((4,), 0.25),
        examples=one + 1,
        clients=torch.arange(4),
        tasks=torch.ones(4, 1, dtype=torch.bool),
        task_names=("a",),
        steps=one + 1,
        backbone=torch.zeros(30),
        layout=fedjoint.model.layout.Layout({"w": (30,)}),
        round=1,
        backbones=torch.zeros(2, 30),
        received=torch.arange(4) % 2,
    )
    with pytest.raises(UserError, match=line):
        checked_merge(strategy(merge=returned), updates)


def test_means_are_of_those_who_have_each_and_of_a_shared_head_of_its_task():
    layout = fedjoint.model.layout.Layout({"w": (2,), "heads.a.weight": (1,)})
    matrix = torch.tensor([[1.0, 2, 3], [3, 4, 5], [5, 6, 7]])
    updates = fedjoint.Updates(
        matrix=matrix,
        weights=torch.tensor([0.5, 0.25, 0.25]),
        examples=torch.ones(3, dtype=torch.int64),
        clients=torch.arange(3),
        tasks=torch.tensor([[True, True], [False, True], [True, False]]),
        task_names=("a", "b"),
        steps=torch.ones(3, dtype=torch.int64),
        backbone=torch.zeros(3),
        layout=layout,
        round=1,
        backbones=torch.zeros(3, 3),
        received=torch.tensor([0, 0, 2]),
    )
    first = [(0.5 * 1 + 0.25 * 3) / 0.75, (0.5 * 2 + 0.25 * 4) / 0.75, 3.0]
    expected = torch.tensor([first, [0.0, 0, 0], [5.0, 6, 7]])
    torch.testing.assert_close(updates.means(), expected)
    one = replace(updates, backbones=updates.backbones[:1], received=torch.zeros(3).long())
    torch.testing.assert_close(one.means()[0], one.mean())
