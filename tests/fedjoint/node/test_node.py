"""A node: a client that fails harms no other, and a resumed server meets the past it expects."""

import shutil
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Message
from support.busy import BUSY
from support.plugins import plugin
from support.states import RUN
from torch import nn

from fedjoint.config.load import check
from fedjoint.data.base import Examples
from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server, number
from fedjoint.node.node import Node
from fedjoint.node.store import StateStore
from fedjoint.problem import build_problem
from fedjoint.protocol.evaluation import EvaluateReply
from fedjoint.protocol.reports import ClientFailure
from fedjoint.protocol.requests import EVALUATE, TRAIN, Asked, EvaluateRequest, Header, TrainRequest
from fedjoint.protocol.training import Terms
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.record import Failure
from fedjoint.server.collect import Collector

CLIENTS = 4


def configure(compression="none"):
    kept = {"fraction": 0.3} if compression == "topk" else {}
    return check(
        {
            "data": {"clients": CLIENTS, "task_mix": [["digit"]]},
            "model": {"backbone": {"options": {"hidden": [8]}}},
            "local": {"steps": 3, "optimiser": {"lr": 0.5}},
            "strategy": {"compression": plugin(compression, **kept)},
        }
    )


CONFIG = configure()

LEDGERS = defaultdict(Ledger)  # the server's, of every node


@pytest.fixture
def problem():
    return build_problem(CONFIG)


def header(round=1, generation=0, resumed_from=0, method="joint", options=None, timeout=60.0):
    how = method, options or {}, timeout
    return Header("run", RUN, {}, round, generation, resumed_from, 0, *how)


def share(clients):
    """Return a request's clients, in one block."""
    count = len(clients)
    return Asked(
        clients=np.array(clients),
        weights=1.0 + np.arange(count),
        blocks=np.array([0]),
        sizes=np.array([count]),
        tasks=np.ones((count, 1), bool),
    )


def send(node, kind, request):
    be_server()
    (message,) = number([Message(request.pack(), 1, kind)])
    return Message(node.handle(message), reply_to=message)


def backbone(node):
    state = node.rooms[""].trainer.model.state_dict()
    return {name: state[name] for name in node.rooms[""].trainer.layout.shapes}


def train(
    node,
    clients,
    round=1,
    generation=0,
    resumed_from=0,
    reduce=False,
    few=(),
    merged=True,
    **how,
):
    """Have ``clients`` train; return what the server, which then merges, makes of the reply."""
    asked, compression = share(clients), node.config.strategy.compression
    request = TrainRequest(
        header=header(round, generation, resumed_from, **how),
        group="",
        backbone=backbone(node),
        broadcast={},
        asked=asked,
        rounds=LEDGERS[node].of(asked.clients),
        sampled=np.isin(asked.clients, few),
        reduce=reduce,
    )
    shares = how.get("method") != "independent"
    terms = Terms(node.rooms[""].trainer.layout, ("digit",), reduce, shares, compression)
    collector = Collector(terms, np.array(few, np.int64))
    collector.add(1, asked, send(node, TRAIN, request))
    if merged:
        LEDGERS[node].count(collector.trained, round, collector.client_losses())
    return collector


def updates(collector):
    assert not collector.failed
    return collector.updates(torch.zeros(collector.terms.layout.size), 1)


def test_a_node_has_as_long_as_the_request_says(problem, tmp_path, monkeypatch):
    monkeypatch.setenv("BUSY", str(tmp_path))  # which is there for ever
    collector = train(
        Node(problem, CONFIG, None), [1, 2], method=BUSY.partition("=")[2], timeout=0.25
    )
    said = {failure.client: failure.reason for failure in collector.failed}
    assert said.keys() == {1, 2} and "within strategy.timeout = 0.25 s" in said[1]


def test_a_resumed_run_forgets_what_memory_holds_of_later_rounds(problem, tmp_path):
    node = Node(problem, CONFIG, StateStore(tmp_path / "state.sqlite", RUN), write_through=True)
    for round in (1, 2, 3):
        train(node, [1, 2], round)
    copy = shutil.copytree(tmp_path, tmp_path.parent / "copy")
    restarted = Node(problem, CONFIG, StateStore(copy / "state.sqlite", RUN))
    # Heads are those of round 1 again, even though nobody asks for rounds 2 to 4.
    for resumed in (node, restarted):
        LEDGERS[resumed] = Ledger(np.array([1, 2]), np.array([1, 1]))
    for round in (5, 6):
        found, expected = (updates(train(n, [1, 2], round, 1, 1)) for n in (node, restarted))
        assert torch.equal(found.matrix, expected.matrix)


def spoil(problem, client, change):
    real = problem.data.client
    problem.data.client = lambda index: change(real(index)) if index == client else real(index)


def shifted(client):
    train = Examples(client.train.x + 1, client.train.y)
    return type(client)(train, client.valid, client.test)


def exchanged(client):
    return type(client)(client.train, client.test, client.valid)


def restarted(problem, config, path, before):
    """Return a node that takes the place of another, for a server that remembers."""
    node = Node(problem, config, StateStore(path, RUN), write_through=True)
    LEDGERS[node] = replace(LEDGERS[before])
    return node


@pytest.mark.parametrize("change", [shifted, exchanged])
def test_a_restarted_node_refuses_data_that_have_changed(problem, tmp_path, change):
    path = tmp_path / "state.sqlite"
    node = Node(problem, CONFIG, StateStore(path, RUN), write_through=True)
    train(node, [1, 2])
    assert not train(restarted(problem, CONFIG, path, node), [1, 2], 2).failed
    changed = build_problem(CONFIG)
    for client in (2, 3):  # client 3 was never loaded
        spoil(changed, client, change)
    collector = train(restarted(changed, CONFIG, path, node), [1, 2, 3], 3)
    (failure,) = collector.failed
    assert failure.client == 2 and "the data of client 2 are not those" in failure.reason
    assert collector.trained.tolist() == [1, 3]


def test_a_node_without_the_state_that_counts_tells_the_server_of_whom(problem, tmp_path):
    node = Node(problem, CONFIG, StateStore(tmp_path / "state.sqlite", RUN), write_through=True)
    train(node, [1, 2])
    lost = restarted(problem, CONFIG, tmp_path / "anew.sqlite", node)
    collector = train(lost, [1, 2, 3], 2)
    assert {failure.client for failure in collector.failed} == {1, 2}
    assert all("after round 1 is not here" in failure.reason for failure in collector.failed)
    assert collector.trained.tolist() == [3]  # which had trained nowhere


def test_a_node_refuses_the_state_of_another_run(tmp_path):
    StateStore(tmp_path / "state.sqlite", RUN).close()
    before = (tmp_path / "state.sqlite").read_bytes()
    with pytest.raises(UserError, match=r"state\.sqlite: of another run: its id is a") as error:
        StateStore(tmp_path / "state.sqlite", "b" * 32)
    assert "\n" not in str(error.value)
    assert (tmp_path / "state.sqlite").read_bytes() == before


def undefined(client):
    train = Examples(client.train.x * float("nan"), client.train.y)
    return type(client)(train, client.valid, client.test)


def lost(client):
    raise OSError("disk on fire")


@pytest.mark.parametrize("fault", [undefined, lost])
@pytest.mark.parametrize("compression", ["none", "topk", "int8"])
def test_a_client_that_fails_leaves_the_others_updates_alone(compression, fault):
    config = configure(compression)
    problem = build_problem(config)
    expected = train(Node(problem, config, None), [0, 1, 3])
    spoil(problem, 2, fault)
    node = Node(problem, config, None)
    for round in (1, 2):
        collector = train(node, [0, 1, 2, 3], round)
        (failed,) = collector.failed
        assert failed.client == 2
        assert failed.reason == (
            "OSError: disk on fire"
            if fault is lost
            else "client 2, train inputs: example 0 is not finite; clean its data"
        )
        found = collector.updates(torch.zeros(collector.terms.layout.size), 1)
        assert found.clients.tolist() == [0, 1, 3]
        if round == 1:
            torch.testing.assert_close(found.matrix, updates(expected).matrix)


@pytest.mark.parametrize("fault", [undefined, lost])
def test_a_client_that_fails_leaves_the_mean_of_a_block_alone(problem, fault):
    rows = updates(train(Node(problem, CONFIG, None), [0, 1, 3]))
    spoil(problem, 2, fault)
    collector = train(Node(problem, CONFIG, None), [0, 1, 2, 3], reduce=True)
    assert [failure.client for failure in collector.failed] == [2]
    mean = torch.tensor([1.0, 2.0, 4.0]) / 7 @ rows.matrix  # weights as in ``send``
    found = collector.updates(torch.zeros(collector.terms.layout.size), 1)
    torch.testing.assert_close(found.mean(), mean)


@pytest.mark.parametrize("fault", [undefined, lost])
def test_rows_of_a_sample_go_beside_the_mean_of_a_block(problem, fault):
    rows = updates(train(Node(problem, CONFIG, None), [0, 1, 3])).matrix[1:]
    spoil(problem, 2, fault)
    collector = train(Node(problem, CONFIG, None), [0, 1, 2, 3], reduce=True, few=[1, 2, 3])
    found = collector.updates(torch.zeros(collector.terms.layout.size), 1)
    ids, gram = collector.compared(found)
    assert ids.tolist() == [1, 3]
    torch.testing.assert_close(gram, (rows @ rows.T).double())


def evaluate(node, clients):
    asked = share(clients)
    rounds = LEDGERS[node].of(asked.clients)
    request = EvaluateRequest(header(), "", backbone(node), {}, asked, rounds)
    reply = send(node, EVALUATE, request)
    found = EvaluateReply.unpack(reply, asked, node.problem.tasks)
    return {name: rows.sum(0) for name, rows in found.sums.items()}, found.failed


def test_a_client_that_fails_leaves_the_others_metrics_alone(problem):
    expected, _ = evaluate(Node(problem, CONFIG, None), [0, 1, 3])
    spoil(problem, 2, lost)
    found, failed = evaluate(Node(problem, CONFIG, None), [0, 1, 2, 3])
    assert failed == (ClientFailure(2, "OSError: disk on fire"),)
    assert found.keys() == expected.keys()
    for name, sums in expected.items():
        np.testing.assert_array_equal(found[name], sums)


@pytest.mark.parametrize("compression", ["none", "topk"])
def test_clients_that_trained_and_others_go_together(compression):
    config = configure(compression)
    problem = build_problem(config)
    node, other = Node(problem, config, None), Node(problem, config, None)
    train(node, [0, 1])
    train(other, [0, 1])
    together = updates(train(node, [0, 1, 2, 3], round=2)).matrix
    apart = [updates(train(other, clients, round=2)).matrix for clients in ([0, 1], [2, 3])]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("compression", ["none", "topk"])
def test_clients_that_trained_and_others_are_evaluated_together(compression):
    config = configure(compression)
    node = Node(build_problem(config), config, None)
    train(node, [0, 1])
    together, failed = evaluate(node, [0, 1, 2, 3])
    assert not failed
    apart = [evaluate(node, clients)[0] for clients in ([0, 1], [2, 3])]
    for name, sums in together.items():
        np.testing.assert_array_equal(sums, apart[0][name] + apart[1][name])


def with_dropout():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Dropout(0.5))


@pytest.mark.parametrize("compression", ["none", "topk"])
def test_what_a_client_draws_does_not_depend_on_who_trains_beside_it(problem, compression):
    config = configure(compression)
    problem = replace(problem, backbone=with_dropout)
    alone = Node(problem, config, None)
    alone.rooms[""].trainer.chunk = 1
    for clients in ([0, 1, 2, 3], [0, 2], [1, 3]):
        node = Node(problem, config, None)
        LEDGERS.pop(alone, None)
        alone.state.forget()
        for round in (1, 2):
            found, expected = (updates(train(n, clients, round)) for n in (node, alone))
            torch.testing.assert_close(found.matrix, expected.matrix)
            assert not torch.equal(found.matrix[0], found.matrix[1])


@pytest.mark.parametrize("method", ["joint", "independent", "ditto"])
@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_a_client_that_diverges_in_private_fails_by_name_and_keeps_its_state(method, path):
    config = configure()
    scales = [1.0, 1.0, 1e30, 1.0]
    local = config.local.model_copy(update={"lr_scales": scales, "path": path})
    config = config.model_copy(update={"local": local})
    node = Node(build_problem(config), config, None)
    options = {"lam": 1.0} if method == "ditto" else {}
    for round in (1, 2):
        collector = train(node, [0, 1, 2, 3], round, method=method, options=options)
        (failed,) = collector.failed
        assert failed == Failure(2, 1, "what it learnt is not finite; lower local.optimiser.lr")
        assert collector.trained.tolist() == [0, 1, 3]
    kept = node.state.take(np.array([2]), np.array([0]), lambda: {"fresh": torch.ones(1)})
    assert kept.keys() == {"fresh"}


def test_a_client_whose_outputs_are_not_finite_is_unevaluated_and_the_others_count(problem):
    expected, _ = evaluate(Node(problem, CONFIG, None), [0, 1, 3])
    node = Node(problem, CONFIG, None)
    train(node, [2])
    state = node.state.take(np.array([2]), np.array([1]), dict)
    state["heads.digit.bias"].fill_(torch.nan)
    node.state.put(np.array([2]), np.array([1]), 2, state)
    LEDGERS[node].count(np.array([2]), 2, np.zeros(1))
    found, failed = evaluate(node, [0, 1, 2, 3])
    assert failed == (
        ClientFailure(2, "its model's outputs are not finite; lower local.optimiser.lr"),
    )
    for name, sums in expected.items():
        np.testing.assert_allclose(found[name], sums, rtol=1e-6)
