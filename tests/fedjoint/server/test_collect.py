"""Replies of a round: bad ones are reported, whatever is wrong with them; the others count."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from fedjoint.flower.compat import be_server, number
from fedjoint.model.layout import Layout
from fedjoint.model.parts import Part
from fedjoint.protocol import wire
from fedjoint.protocol.arrays import to_record
from fedjoint.protocol.compression import CompressionConfig, compress
from fedjoint.protocol.requests import TRAIN, Asked
from fedjoint.protocol.training import Terms
from fedjoint.runs.record import Failure
from fedjoint.server.by_part import moved_buffers
from fedjoint.server.collect import Collector
from fedjoint.server.heard import heard

TASKS = ("a", "b")
LAYOUT = Layout({"w": (2, 2)})
BACKBONE = torch.zeros(4)

# node -> clients, block by block; every second client has task b, too.
CLIENTS = {1: [[2, 9, 11]], 2: [[0], [6, 5]], 3: [[4]]}
BLOCKS = {1: [0], 2: [1, 2], 3: [3]}


@pytest.fixture(autouse=True)
def server():
    be_server()


def asked(node):
    clients = np.concatenate(CLIENTS[node])
    return Asked(
        clients=clients,
        weights=10.0 + clients,
        blocks=np.array(BLOCKS[node]),
        sizes=np.array([len(block) for block in CLIENTS[node]]),
        tasks=np.stack([clients >= 0, clients % 2 == 0], 1),
    )


def update(client):
    return np.float32(client) + np.arange(4, dtype=np.float32) / 8


def parts(node, reduce=False):
    """Return what a node in order replies, to be spoilt."""
    mine = asked(node)
    rows = np.stack([update(client) for client in mine.clients])
    if reduce:
        starts = np.cumsum(mine.sizes) - mine.sizes
        weighted = np.add.reduceat(mine.weights[:, None] * rows, starts)
        rows = (weighted / np.add.reduceat(mine.weights, starts)[:, None]).astype(np.float32)
    return {
        "config": {
            "tasks": ["b", "a"],
            "shares": True,
            "failed": [],
            "seconds": 1.5,
            "bytes_per_client": 100,
            "fallback": None,
        },
        "report": {
            "clients": mine.clients,
            "good": np.ones(len(mine.clients), bool),
            "examples": 20 + mine.clients,
            "steps": 1 + mine.clients % 3,
            "work": 2 + mine.clients,
            "losses": np.stack([1.0 + mine.clients, 2.0 + mine.clients], 1).astype(np.float32),
            "block_seconds": np.ones(len(mine.blocks)),
        },
        "updates": {"updates": rows},
        "extras": {"control": np.stack([mine.clients, -mine.clients], 1).astype(np.float32)},
    }


def message(reply):
    reply = dict(reply)
    return Message(wire.pack(reply.pop("config"), **reply), 1, TRAIN)


def terms(reduce=False, layout=LAYOUT, shares=True, compression=None, within=False):
    return Terms(layout, TASKS, reduce, shares, compression or CompressionConfig(), within)


def collect(replies, reduce=False, few=(), **run):
    collector = Collector(terms(reduce, **run), np.array(few, np.int64))
    for node, reply in replies:
        found = reply if isinstance(reply, Message) else message(reply)
        collector.add(node, asked(node), found)
    collector.settle()
    return collector


def check(collector, expected):
    """Check what was collected against ``expected`` clients, stacked by hand."""
    found = collector.updates(BACKBONE, round=3)
    expected = sorted(expected)
    assert found.clients.tolist() == expected
    assert found.matrix.numpy().tolist() == [update(client).tolist() for client in expected]
    weights = np.array([10.0 + client for client in expected])
    np.testing.assert_allclose(found.weights, weights / weights.sum(), rtol=1e-6)
    assert found.examples.tolist() == [20 + client for client in expected]
    assert found.steps.tolist() == [1 + client % 3 for client in expected]
    assert found.tasks.tolist() == [[True, client % 2 == 0] for client in expected]
    assert found.extras["control"].tolist() == [[client, -client] for client in expected]
    assert (found.round, found.task_names, found.layout) == (3, TASKS, LAYOUT)
    assert collector.trained.tolist() == expected
    assert collector.bytes_up == 100 * len(expected)


EVERYONE = [0, 2, 4, 5, 6, 9, 11]


@pytest.mark.parametrize("order", [*itertools.permutations([1, 2, 3])])
def test_updates_are_sorted_by_client_whatever_the_arrival(order):
    collector = collect([(node, parts(node)) for node in order])
    check(collector, EVERYONE)
    assert not collector.failed and collector.terms.shares
    assert collector.block_seconds == {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}
    mean, each = collector.losses()
    share = np.array([20.0 + client for client in EVERYONE])
    share /= share.sum()
    assert each == {
        "a": pytest.approx(share @ [2.0 + c for c in EVERYONE]),
        "b": pytest.approx(share @ [1.0 + c for c in EVERYONE]),
    }
    assert mean == pytest.approx(each["a"] + each["b"])


def spoil(record, name, change):
    def spoilt():
        reply = parts(2)
        reply[record] = dict(reply[record])
        reply[record][name] = change(reply[record][name])
        return reply

    return spoilt


def lack(record, name):
    def spoilt():
        reply = parts(2)
        reply[record] = {key: value for key, value in reply[record].items() if key != name}
        return reply

    return spoilt


def set_row(row, value):
    def change(rows):
        rows = rows.copy()
        rows[row] = value
        return rows

    return change


def raw(change):
    """Change the content of a message in order."""

    def spoilt():
        found = message(parts(2))
        change(found.content)
        return found

    return spoilt


def forged(record, name, data, stype="numpy.ndarray"):
    def change(content):
        array = Array(dtype="float32", shape=(4, 4), stype=stype, data=data)
        content[record] = ArrayRecord({**content[record], name: array})

    return raw(change)


def drop(name):
    return raw(lambda content: content.pop(name))


def failure():
    (request,) = number([Message(RecordDict(), 2, TRAIN)])
    return Message(Error(code=2, reason="out of memory"), reply_to=request)


HUGE = b"\x93NUMPY\x01\x00v\x00" + (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999, 4), }".ljust(117) + b"\n"
)

PAYLOAD = {
    "payload.index": np.zeros((50_000, 0), np.int32),
    "payload.values": np.zeros((50_000, 0), np.float32),
}

BAD = {
    "an error": (failure, "out of memory"),
    "a row too few": (
        spoil("updates", "updates", lambda u: u[:2]),
        r"'updates' has shape \(2, 4\)",
    ),
    "a column too few": (spoil("updates", "updates", lambda u: u[:, :3]), r"expected \(3, 4\)"),
    "a flat array": (spoil("updates", "updates", np.ravel), r"'updates' has shape \(12,\)"),
    "NaN": (spoil("updates", "updates", set_row(1, np.nan)), "an update is not finite"),
    "infinity": (spoil("updates", "updates", set_row((2, 2), np.inf)), "an update is not finite"),
    "float64": (spoil("updates", "updates", lambda u: u.astype(float)), "float64, not float32"),
    "integers": (spoil("updates", "updates", lambda u: u.astype(int)), "of type int64"),
    "complex": (spoil("updates", "updates", lambda u: u.astype(complex)), "of type complex128"),
    "big-endian": (spoil("updates", "updates", lambda u: u.astype(">f4")), "not float32"),
    "no update": (lack("updates", "updates"), "lacks 'updates'"),
    "no updates at all": (drop("updates"), "lacks 'updates'"),
    "other clients": (
        spoil("report", "clients", lambda c: c[::-1].copy()),
        "about other clients than were asked for",
    ),
    "a stranger": (spoil("report", "clients", lambda c: c + 1), "about other clients"),
    "a client twice": (spoil("report", "clients", set_row(1, 0)), "about other clients"),
    "clients too few": (spoil("report", "clients", lambda c: c[:2]), "'clients' has shape"),
    "clients of text": (
        spoil("report", "clients", lambda c: c.astype(str)),
        "'clients' is of type",
    ),
    "no clients": (lack("report", "clients"), "lacks 'clients'"),
    "no report": (drop("report"), "lacks 'good'"),
    "good too few": (spoil("report", "good", lambda g: g[:2]), "'good' has shape"),
    "good numbers": (spoil("report", "good", lambda g: g.astype(int)), "'good' is of type int64"),
    "examples of another shape": (spoil("report", "examples", lambda e: e[None]), "'examples'"),
    "fractions of examples": (spoil("report", "examples", lambda e: e / 2), "of type float64"),
    "examples beyond int64": (
        spoil("report", "examples", lambda e: e.astype(np.uint64) + np.uint64(2**63)),
        "'examples' is above",
    ),
    "too many steps": (spoil("report", "steps", lambda s: s + 2**41), "'steps' is above"),
    "bytes beyond all measure": (
        spoil("config", "bytes_per_client", lambda b: 10**400),
        "'bytes_per_client': Input should be less than",
    ),
    "bytes of text": (spoil("config", "bytes_per_client", lambda b: "100"), "'bytes_per_client'"),
    "negative times": (spoil("report", "block_seconds", lambda s: -s), "a time is negative"),
    "a time that is NaN": (
        spoil("config", "seconds", lambda s: float("nan")),
        "'seconds': Input should be a finite",
    ),
    "control characters": (
        spoil("config", "tasks", lambda t: ["\x1b[2J"]),
        r"nobody has: \['\\x1b\[2J'\]",
    ),
    "compressed, unasked": (
        raw(lambda content: content.update(updates=to_record(PAYLOAD))),
        "lacks 'updates'",
    ),
    "negative steps": (spoil("report", "steps", lambda s: -s), "'steps' is negative"),
    "negative work": (spoil("report", "work", lambda s: -s), "'work' is negative"),
    "no losses": (lack("report", "losses"), "lacks 'losses'"),
    "losses of one task": (spoil("report", "losses", lambda x: x[:, :1]), "'losses' has shape"),
    "no times": (lack("report", "block_seconds"), "lacks 'block_seconds'"),
    "a time too few": (spoil("report", "block_seconds", lambda s: s[:1]), "'block_seconds'"),
    "an unknown task": (spoil("config", "tasks", lambda t: ["b", "c"]), r"nobody has: \['c'\]"),
    "no tasks": (lack("config", "tasks"), "'tasks': Field required"),
    "no time": (lack("config", "seconds"), "'seconds': Field required"),
    "a time of text": (
        spoil("config", "seconds", lambda s: "soon"),
        "a valid number",
    ),
    "a damaged failure": (
        spoil("config", "failed", lambda f: ["?"]),
        "'failed.0': Input",
    ),
    "an extra too short": (spoil("extras", "control", lambda e: e[:2]), r"'control' has shape"),
    "an extra of no shape": (spoil("extras", "control", lambda e: e[0, 0]), "'control' has shape"),
    "an extra that is NaN": (spoil("extras", "control", set_row(2, np.nan)), "not finite"),
    "an extra of text": (spoil("extras", "control", lambda e: e.astype(str)), "of type <U"),
    "a big-endian extra": (spoil("extras", "control", lambda e: e.astype(">f4")), "damaged reply"),
    "an extra of another shape": (
        spoil("extras", "control", lambda e: e[:, :1]),
        "other arrays than most clients did",
    ),
    "an extra of another type": (
        spoil("extras", "control", lambda e: e.astype(float)),
        "other arrays than most clients did",
    ),
    "an extra too few": (lack("extras", "control"), "other arrays than most clients did"),
    "nothing shared": (spoil("config", "shares", lambda s: False), "method is not the run's"),
    "no config": (drop("config"), "not a fedjoint message"),
    "another version": (
        raw(lambda content: content.update(config=ConfigRecord({"schema": 99}))),
        "message schema 99",
    ),
    "no array": (forged("updates", "updates", b"no array"), "damaged arrays in 'updates'"),
    "half an array": (forged("report", "clients", HUGE[:40]), "damaged arrays in 'report'"),
    "a huge array": (forged("updates", "updates", HUGE), r"128 bytes do not hold \(99999"),
    "a zip archive": (forged("updates", "updates", b"PK\x03\x04" + bytes(40)), "magic string"),
    "a pickle": (forged("updates", "updates", b"\x80\x04N."), "damaged arrays"),
    "another serialisation": (forged("updates", "updates", b"", "mine"), "damaged arrays"),
}


@pytest.mark.parametrize("order", [(1, 2, 3), (2, 3, 1)])
@pytest.mark.parametrize("what", BAD)
def test_a_bad_reply_is_reported_and_the_others_count(what, order):
    make, words = BAD[what]
    collector = collect([(node, make() if node == 2 else parts(node)) for node in order])
    (failed,) = collector.failed
    assert (failed.node, failed.client) == (2, None)
    assert re.search(words, failed.reason), failed.reason
    assert "\n" not in failed.reason
    check(collector, [2, 4, 9, 11])


def test_a_second_reply_does_not_count():
    twice = [(1, parts(1)), (2, parts(2)), (2, parts(2)), (3, parts(3))]
    collector = collect(twice)
    check(collector, EVERYONE)
    (failed,) = collector.failed
    assert failed == Failure(None, 2, "it replied twice; the first reply counts")


@pytest.mark.parametrize("order", [(1, 3), (3, 1)])
def test_where_nodes_differ_most_clients_win_and_then_the_first_node(order):
    odd = {**parts(3), "extras": {}}
    replies = {1: parts(1), 3: odd}
    collector = collect([(node, replies[node]) for node in order])
    check(collector, [2, 9, 11])
    even = parts(1)
    even["report"]["good"] = np.array([False, True, False])
    replies = {1: even, 3: odd}
    collector = collect([(node, replies[node]) for node in order])
    assert collector.trained.tolist() == [9]


def spoilt_client(reduce=False):
    """Return node 2's reply with client 6 failed, and NaN where its update would be."""
    reply = parts(2, reduce)
    reply["report"]["good"] = np.array([True, False, True])
    reply["config"]["failed"] = [{"client": 6, "reason": "disk on fire"}]
    if reduce:
        reply["updates"]["updates"][1] = update(5)
    else:
        reply["updates"]["updates"][1] = np.nan
        reply["extras"]["control"][1] = np.inf
        reply["report"]["losses"][1] = np.nan
    return reply


def test_a_failed_client_leaves_its_node_s_others_alone():
    collector = collect([(1, parts(1)), (2, spoilt_client()), (3, parts(3))])
    check(collector, [0, 2, 4, 5, 9, 11])
    assert collector.failed == [Failure(6, 2, "disk on fire")]


def test_a_client_that_vanishes_is_reported_too():
    reply = spoilt_client()
    reply["config"]["failed"] = []
    collector = collect([(2, reply)])
    assert [(f.client, f.reason) for f in collector.failed] == [(6, "the node gives no reason")]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_node_without_a_client_that_trained_reports_each(compressed):
    reply = parts(2)
    reply["report"]["good"][:] = False
    reply["config"]["failed"] = [{"client": c, "reason": f"no disk {c}"} for c in (0, 5, 6)]
    reply["extras"] = {}
    if compressed:
        reply["updates"] = {}
    collector = collect([(2, reply), (1, parts(1)), (3, parts(3))])
    check(collector, [2, 4, 9, 11])
    assert {f.client: f.reason for f in collector.failed} == {
        0: "no disk 0",
        5: "no disk 5",
        6: "no disk 6",
    }
    nobody = collect([(2, reply)])
    assert not len(nobody.trained) and nobody.losses() == (None, {})


@pytest.mark.parametrize("failing", [False, True])
def test_sums_over_blocks_have_the_mean_of_the_rows(failing):
    def both(reduce):
        second = spoilt_client(reduce) if failing else parts(2, reduce)
        replies = [(3, parts(3, reduce)), (2, second), (1, parts(1, reduce))]
        return collect(replies, reduce).updates(BACKBONE, round=1)

    summed, rows = both(True), both(False)
    assert summed.clients.tolist() == [0]  # the first of the blocks, whose clients are alike
    torch.testing.assert_close(summed.mean(), rows.mean())
    assert int(summed.examples.sum()) == int(rows.examples.sum())
    assert summed.weights.sum() == pytest.approx(1)


def check_mean(updates, clients):
    """Check that the only row is the mean of some clients by their weights."""
    weights = 10.0 + np.array(clients)
    expected = weights @ np.stack([update(client) for client in clients]) / weights.sum()
    np.testing.assert_allclose(updates.matrix.numpy(), expected[None], rtol=1e-6)
    assert int(updates.examples[0]) == sum(20 + client for client in clients)


def test_blocks_without_a_client_that_trained_have_no_part_in_the_mean():
    reply = parts(2, reduce=True)
    reply["report"]["good"] = np.array([False, True, True])
    reply["updates"]["updates"][0] = np.nan
    collector = collect([(1, parts(1, reduce=True)), (2, reply)], reduce=True)
    check_mean(collector.updates(BACKBONE, 1), [2, 9, 11, 6, 5])
    assert [f.client for f in collector.failed] == [0]


FEW = [11, 0, 4, 6]


def with_sample(node):
    """Return a reply in order with the rows of :data:`FEW` beside the blocks' means."""
    mine = np.concatenate(CLIENTS[node])
    rows = [update(client) for client in mine[np.isin(mine, FEW)]]
    return {**parts(node, reduce=True), "sample": {"sample": np.stack(rows)}}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
@pytest.mark.parametrize("reduce", [False, True])
def test_a_sample_is_compared_whatever_else_arrives(order, reduce):
    make = with_sample if reduce else parts
    collector = collect([(node, make(node)) for node in order], reduce, FEW)
    assert not collector.failed
    ids, gram = collector.compared(collector.updates(BACKBONE, 1))
    assert ids.tolist() == [0, 4, 6, 11]
    rows = np.stack([update(client) for client in ids.tolist()]).astype(float)
    np.testing.assert_allclose(gram.numpy(), rows @ rows.T, rtol=1e-6)
    assert gram.dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:1], r"'sample' has shape \(1, 4\), expected \(2, 4\)"),
        (lambda rows: rows * np.nan, "a sampled update is not finite"),
        (lambda rows: rows.astype(float), "a sampled update is float64"),
        (None, "lacks 'sample'"),
    ],
)
def test_a_bad_sample_is_reported_and_the_others_count(change, words):
    bad = with_sample(2)
    bad["sample"] = {"sample": change(bad["sample"]["sample"])} if change else {}
    collector = collect([(1, with_sample(1)), (2, bad), (3, with_sample(3))], True, FEW)
    (failed,) = collector.failed
    assert failed.node == 2 and re.search(words, failed.reason)
    ids, _ = collector.compared(collector.updates(BACKBONE, 1))
    assert ids.tolist() == [4, 11]


def test_a_failed_client_of_the_sample_is_left_out():
    bad = with_sample(2)
    bad["report"]["good"] = np.array([True, False, True])  # 6 failed, 0 and 5 trained
    bad["sample"]["sample"][1] = np.nan
    collector = collect([(1, with_sample(1)), (2, bad)], True, FEW)
    ids, gram = collector.compared(collector.updates(BACKBONE, 1))
    assert ids.tolist() == [0, 11] and gram.isfinite().all()


BUFFERS = Layout({"w": (2, 2), "mean": (3,)}, ("mean",))


def with_buffers(node, reduce=False):
    """Return a reply in order whose clients moved their buffers by multiples of their id."""
    moved = np.array([np.mean(block) for block in CLIENTS[node]])
    moved = moved if reduce else np.concatenate(CLIENTS[node])
    rows = np.outer(moved, [1, 2, 3]).astype(np.float32)
    return {**parts(node, reduce), "buffers": {"buffers": rows}}


def collect_buffers(replies, reduce=False):
    collector = Collector(terms(reduce, BUFFERS), np.zeros(0, np.int64))
    for node, reply in replies:
        collector.add(node, asked(node), message(reply))
    collector.settle()
    return collector


def told(node, few, change=lambda grams: grams):
    """A reply with ``client + [[3, 2], [2, 1]]`` of its sampled clients, tasks as it names them."""
    clients = np.array([client for client in asked(node).clients if client in few], float)
    grams = clients[:, None, None] + np.array([[3.0, 2.0], [2.0, 1.0]])
    return {**parts(node), "within": {"within": change(grams)}}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_tasks_within_clients_are_in_the_run_s_order(order):
    clients = [client for node in (1, 2, 3) for client in asked(node).clients.tolist()]
    few = sorted(clients)[::2]
    collector = collect([(node, told(node, few)) for node in order], few=few, within=True)
    assert not collector.failed
    expected = [[[client + 1, client + 2], [client + 2, client + 3]] for client in few]
    assert collector.within().tolist() == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda grams: grams[:, :1], "'within' has shape"),
        (lambda grams: grams[1:], "'within' has shape"),
        (lambda grams: grams.astype(int), "within"),
    ],
)
def test_bad_comparisons_of_tasks_are_reported(change, words):
    few = asked(1).clients.tolist()
    collector = collect([(1, told(1, few, change))], few=few, within=True)
    assert len(collector.failed) == 1 and words in collector.failed[0].reason


def test_what_is_not_finite_within_a_client_is_unknown():
    few = asked(1).clients.tolist()
    reply = told(1, few, lambda grams: grams * np.inf)
    assert collect([(1, reply)], few=few, within=True).within().isnan().all()
    assert collect([(1, parts(1))], few=few, within=True).within().isnan().all()


@pytest.mark.parametrize("order", [(1, 2, 3), (2, 3, 1)])
@pytest.mark.parametrize("reduce", [False, True])
def test_buffers_move_by_the_weighted_mean(order, reduce):
    collector = collect_buffers([(node, with_buffers(node, reduce)) for node in order], reduce)
    assert not collector.failed
    found = collector.updates(BACKBONE, 1)
    assert found.matrix.shape[1] == 4 and found.layout == LAYOUT
    blocks = [block for node in (1, 2, 3) for block in CLIENTS[node]]
    blocks = blocks if reduce else [[client] for client in EVERYONE]
    weights = np.array([sum(10.0 + client for client in block) for block in blocks])
    keys = np.array([np.mean(block) for block in blocks])
    expected = weights @ keys / weights.sum() * np.array([1, 2, 3])
    part, groups = Part("", BUFFERS, ("",)), {"": collector}
    moved = moved_buffers(part, groups, robust=False)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:, :2], r"'buffers' has shape \(3, 2\), expected \(3, 3\)"),
        (lambda rows: rows * np.inf, "a change of buffers is not finite"),
        (None, "lacks 'buffers'"),
    ],
)
def test_bad_buffers_are_reported_and_the_others_count(change, words):
    bad = with_buffers(2)
    bad["buffers"] = {"buffers": change(bad["buffers"]["buffers"])} if change else {}
    collector = collect_buffers([(1, with_buffers(1)), (2, bad)])
    (failed,) = collector.failed
    assert failed.node == 2 and re.search(words, failed.reason)
    assert collector.trained.tolist() == [2, 9, 11]


@pytest.mark.parametrize("name", ["topk", "int8"])
def test_compressed_updates_are_expanded(name):
    options = {"fraction": 0.5} if name == "topk" else {}
    config = CompressionConfig(name=name, options=options)
    reply = spoilt_client()
    trained = torch.from_numpy(np.stack([update(0), update(5)]))
    payload, sent, _ = compress(trained, torch.zeros(2, 4), config)
    reply["updates"] = {f"payload.{key}": value for key, value in payload.items()}
    found = collect([(2, reply)], compression=config).updates(BACKBONE, 1)
    assert found.clients.tolist() == [0, 5] and torch.equal(found.matrix, sent)

    def refused(updates):
        (failed, *_) = collect([(2, reply | {"updates": updates})], compression=config).failed
        return failed.reason

    twice = {key: torch.cat([value, value]) for key, value in reply["updates"].items()}
    assert re.search(r"is \(4, [24]\), expected \(2, [24]\)", refused(twice))
    assert "expected (2, " in refused(PAYLOAD)  # which would be expanded to 50,000 rows
    assert "is no array" in refused({"updates": np.zeros((2, 4), np.float32)})


def test_clients_that_share_nothing_send_no_updates():
    replies = []
    for node in (1, 2, 3):
        reply = {**parts(node), "updates": {}, "extras": {}}
        reply["config"]["shares"] = False
        replies.append((node, reply))
    collector = collect(replies, shares=False)
    assert not collector.failed and collector.trained.tolist() == EVERYONE
    loud = [(node, parts(node)) for node in (1, 2, 3)]
    assert len(collect(loud, shares=False).failed) == 3


def grown(node, row, factor, record="updates", name="updates"):
    reply = parts(node)
    rows = reply[record][name].copy()
    rows[row] *= np.float32(factor)
    reply[record] = reply[record] | {name: rows}
    return reply


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
@pytest.mark.parametrize("record", ["updates", "extras"])
def test_one_client_of_a_node_sends_nonsense_and_the_others_count(order, record):
    name = "updates" if record == "updates" else "control"
    spoilt = grown(2, 2, 1e20, record, name)  # of client 5
    collector = collect([(n, spoilt if n == 2 else parts(n)) for n in order])
    (failed,) = collector.failed
    assert (failed.client, failed.node, failed.fault) == (5, 2, True)
    assert "as long as the round's median" in failed.reason
    assert collector.trained.tolist() == [0, 2, 4, 6, 9, 11]
    assert collector.updates(BACKBONE, 1).clients.tolist() == [0, 2, 4, 6, 9, 11]


def test_long_rows_are_scaled_down_to_the_bound():
    collector = collect([(1, parts(1)), (2, grown(2, 2, 100.0)), (3, parts(3))])
    before = collector.updates(BACKBONE, 1).matrix
    collector.settle(clip=3.0)
    after = collector.updates(BACKBONE, 1).matrix
    lengths = before.double().norm(dim=1)
    median = lengths.sort().values[3]  # of seven
    place = [0, 2, 4, 5, 6, 9, 11].index(5)
    assert lengths[place] > 3 * median
    torch.testing.assert_close(
        after[place], (before[place] * (3 * median / lengths[place])).float()
    )
    others = torch.arange(7) != place
    assert torch.equal(after[others], before[others])
    assert [(c.client, c.node) for c in collector.clipped] == [(5, 2)] and not collector.failed


def test_of_blocks_the_whole_block_is_left_out():
    spoilt = parts(2, reduce=True)
    rows = spoilt["updates"]["updates"].copy()
    rows[1] *= np.float32(1e15)  # the mean of clients 6 and 5
    spoilt["updates"] = {"updates": rows}
    replies = [(1, parts(1, reduce=True)), (2, spoilt), (3, parts(3, reduce=True))]
    collector = collect(replies, reduce=True)
    assert sorted(failed.client for failed in collector.failed) == [5, 6]
    check_mean(collector.updates(BACKBONE, 1), [2, 9, 11, 0, 4])


def test_weights_are_made_anew_of_those_that_trained():
    collector = collect([(1, parts(1)), (3, parts(3))])
    collector.reweigh(np.array([2, 4, 7, 9, 11]), np.array([1.0, 2.0, 9.0, 3.0, 4.0]))
    found = collector.updates(BACKBONE, 1)
    np.testing.assert_allclose(found.weights, [0.1, 0.2, 0.3, 0.4], rtol=1e-6)


HEARD = {"heard.sums/a": 1e30, "heard.counts/a": 2**40, "heard.logits/a": 1e30}


def told_of(node, reduce, name, liar=None):
    """Return a reply whose clients tell the strategy as a whole something of a usual size."""
    reply = parts(node, reduce)
    clients = reply["report"]["clients"]
    kind = np.int64 if "counts" in name else np.float32
    rows = np.stack([1 + clients % 3, 2 + clients % 3], 1).astype(kind)
    rows[clients == liar] = HEARD[name]
    reply["extras"] = reply["extras"] | {name: rows}
    return reply


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize("name", HEARD)
def test_nonsense_that_a_strategy_would_hear_is_left_out_and_named(name, reduce, order):
    replies = [(n, told_of(n, reduce, name, liar=5 if n == 2 else None)) for n in order]
    collector = collect(replies, reduce)
    culprit, *others = collector.failed
    assert (culprit.client, culprit.node, culprit.fault) == (5, 2, True)
    assert "as long as the round's median" in culprit.reason
    # Of the mean of a block nobody can take a client away.
    assert [(f.client, f.fault) for f in others] == ([(6, False)] if reduce else [])
    assert collector.trained.tolist() == [0, 2, 4, *([] if reduce else [6]), 9, 11]
    sums = heard(collector.parts)[name.removeprefix("heard.")]
    assert len(sums) == len(collector.trained) and sums.max() <= 4


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize("claimed", [1e30, -1e30, 1e7])
def test_a_loss_beyond_all_measure_does_not_count_and_is_named(claimed, reduce, order):
    spoilt = parts(2, reduce)
    spoilt["report"]["losses"][2, 1] = claimed  # of client 5 in task a
    collector = collect([(n, spoilt if n == 2 else parts(n, reduce)) for n in order], reduce)
    assert not collector.failed and collector.trained.tolist() == EVERYONE
    (named,) = collector.clipped
    assert (named.client, named.node) == (5, 2) and "its loss of 'a'" in named.reason
    others = np.array([client for client in EVERYONE if client != 5], float)
    _, each = collector.losses()
    assert each["a"] == pytest.approx((20 + others) @ (2 + others) / (20 + others).sum())
    means = collector.client_losses()
    assert means[EVERYONE.index(5)] == 6  # of task b alone
    assert means[EVERYONE.index(9)] == 10.5


def test_a_client_that_has_just_joined_may_be_far_above_those_that_converged():
    replies = {node: parts(node) for node in (1, 2, 3)}
    for reply in replies.values():
        reply["report"]["losses"] *= np.float32(1e-9)
    replies[2]["report"]["losses"][2] = 1000.0
    assert not collect(replies.items()).clipped


def test_of_two_losses_none_is_told_from_the_other():
    reply = parts(3)
    reply["report"]["losses"][:] = 3e38
    collector = collect([(3, reply)])
    assert not collector.clipped and collector.client_losses().tolist() == [np.float32(3e38)]


def apart(node, liar=None, times=1e20):
    """Return a reply whose clients with both tasks tell them apart; ``liar`` by far too much."""
    reply, both = parts(node), asked(node).clients
    both = both[both % 2 == 0]
    rows = np.stack([update(client) + 1 for client in both])
    rows[both == liar] *= np.float32(times)
    return reply | {"deviations": {"deviations": rows}}


def collect_apart(replies):
    collector = Collector(replace(terms(), deviations=True), np.zeros(0, np.int64))
    for node, reply in replies:
        collector.add(node, asked(node), message(reply))
    collector.settle()
    return collector


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
def test_a_deviation_beyond_all_measure_is_left_out_with_its_client(order):
    clients = {1: [2, 9, 11], 2: [0, 6, 5], 3: [4]}
    collector = collect_apart([(n, apart(n, liar=6 if n == 2 else None)) for n in order])
    (failed,) = collector.failed
    assert (failed.client, failed.node, failed.fault) == (6, 2, True)
    assert "its deviation of a task is more than" in failed.reason
    left = sorted(c for each in clients.values() for c in each if c != 6)
    found = collector.updates(BACKBONE, 1)
    assert found.clients.tolist() == left
    expected = [update(client) + 1 for client in left if client % 2 == 0]
    assert found.deviations.matrix.tolist() == np.stack(expected).tolist()


def test_a_long_deviation_is_scaled_down_to_the_bound():
    collector = collect_apart([(n, apart(n, liar=6, times=100.0)) for n in (1, 2, 3)])
    before = collector.updates(BACKBONE, 1).deviations.matrix
    collector.settle(clip=3.0)
    after = collector.updates(BACKBONE, 1).deviations.matrix
    lengths = before.double().norm(dim=1)
    assert lengths.argmax() == 3  # of clients 0, 2, 4 and 6
    expected = before[3].double() * 3 * lengths.sort().values[1] / lengths[3]
    torch.testing.assert_close(after[3], expected.float())
    assert torch.equal(after[:3], before[:3])
    assert [(c.client, c.node) for c in collector.clipped] == [(6, 2)]


def test_one_of_two_is_not_told_from_the_other():
    name = "heard.sums/a"
    collector = collect([(3, told_of(3, False, name, liar=4))])
    assert collector.trained.tolist() == [4] and not collector.failed
