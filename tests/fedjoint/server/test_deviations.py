"""Deviations of single tasks as nodes send them: stacked in order, whatever a node may send."""

import itertools
import re

import numpy as np
import pytest
import torch
from flwr.app import Message

from fedjoint.config.schema import CompressionConfig
from fedjoint.flower.compat import be_server
from fedjoint.model.layout import Layout
from fedjoint.protocol import wire
from fedjoint.protocol.requests import TRAIN, Asked
from fedjoint.protocol.training import Terms
from fedjoint.server.collect import Collector

SIZE = 3
TASKS = ("a", "b", "c")
#: client -> its tasks
HELD = {4: "ac", 6: "abc", 1: "abc", 3: "b", 8: "abc", 2: "bc"}
#: node -> its blocks, whose clients have the same tasks; and its tasks in its own order, so that of
#: client 6 another task's deviation is left out than of 1 and 8
NODES = {1: ([[4], [6]], "cab"), 2: ([[1, 8], [3]], "abc"), 3: ([[2]], "bca")}


@pytest.fixture(autouse=True)
def server():
    be_server()


def alone(client, task):
    """Return the update of one task of a client, less that of the client; they sum to zero."""
    own = np.random.default_rng([client, ord(task)]).normal(size=SIZE)
    others = [np.random.default_rng([client, ord(t)]).normal(size=SIZE) for t in HELD[client]]
    return (own - np.mean(others, 0)).astype(np.float32)


def asked(node):
    blocks = NODES[node][0]
    clients = np.concatenate(blocks)
    return Asked(
        clients=clients,
        weights=1.0 + clients,
        blocks=10 * node + np.arange(len(blocks)),
        sizes=np.array([len(block) for block in blocks]),
        tasks=np.array([[t in HELD[c] for t in TASKS] for c in clients.tolist()]),
    )


def reply(node, good=None, reduce=False, spoil=lambda rows: rows):
    mine, (blocks, order) = asked(node), NODES[node]
    good = np.ones(len(mine.clients), bool) if good is None else np.array(good)
    counted = set(mine.clients[good].tolist())
    groups = blocks if reduce else [[client] for client in mine.clients.tolist()]
    rows = []
    for group in groups:
        group = [client for client in group if client in counted]
        held = [task for task in order if group and task in HELD[group[0]]]
        weights = [1.0 + client for client in group]
        rows += [np.average([alone(c, t) for c in group], 0, weights) for t in held[:-1]]
    deviations = spoil(np.array(rows, np.float32).reshape(-1, SIZE))
    count = len(mine.clients)
    zeros = np.zeros(count, np.int64)
    content = wire.pack(
        {
            "tasks": list(order),
            "shares": True,
            "failed": [],
            "seconds": 1.0,
            "bytes_per_client": 4 * SIZE,
            "fallback": None,
        },
        report={
            "clients": mine.clients,
            "good": good,
            "examples": zeros + 1,
            "steps": zeros + 1,
            "work": zeros + 1,
            "losses": np.ones((count, 3), np.float32),
            "block_seconds": np.ones(len(blocks)),
        },
        updates={"updates": np.ones((len(groups), SIZE), np.float32)},
        deviations={} if deviations is None or not deviations.size else {"deviations": deviations},
    )
    return Message(content, node, TRAIN)


def collect(replies, reduce=False):
    layout = Layout({"w": (SIZE,)})
    terms = Terms(layout, TASKS, reduce, True, CompressionConfig(), deviations=True)
    collector = Collector(terms, np.zeros(0, np.int64))
    for node, message in replies:
        collector.add(node, asked(node), message)
    collector.settle()
    return collector


def check(updates, clients):
    """Check the rows of tasks against the clients' own, one by one."""
    tasks = updates.by_task()
    for row, task in enumerate(tasks.clients.tolist()):
        own = [client for client in clients if TASKS[task] in HELD[client]]
        shares = [(1.0 + client) / len(HELD[client]) for client in own]
        expected = 1 + np.average([alone(client, TASKS[task]) for client in own], 0, shares)
        np.testing.assert_allclose(tasks.matrix[row], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tasks.mean(), updates.mean())


@pytest.mark.parametrize("reduce", [False, True], ids=["rows", "blocks"])
@pytest.mark.parametrize("order", [*itertools.permutations(NODES)])
def test_each_task_gets_its_own_rows_whatever_the_arrival(order, reduce):
    collector = collect([(node, reply(node, reduce=reduce)) for node in order], reduce)
    assert not collector.failed
    check(collector.updates(torch.zeros(SIZE), 1), HELD)
    # A row of its own for each client, and one more for each of its tasks beyond the first.
    assert collector.bytes_up == 4 * SIZE * sum(map(len, HELD.values()))


@pytest.mark.parametrize("reduce", [False, True], ids=["rows", "blocks"])
def test_clients_that_failed_have_none(reduce):
    replies = [(1, reply(1)), (2, reply(2, [False, True, True], reduce)), (3, reply(3, [False]))]
    collector = collect(replies, reduce)
    check(collector.updates(torch.zeros(SIZE), 1), [4, 6, 8, 3])
    assert collector.bytes_up == 4 * SIZE * (2 + 3 + 3 + 1)


def test_where_all_who_trained_have_one_task_there_are_none():
    collector = collect([(2, reply(2, [False, False, True]))])
    updates = collector.updates(torch.zeros(SIZE), 1)
    assert updates.deviations.matrix.shape == (0, SIZE)
    torch.testing.assert_close(updates.by_task().matrix, torch.ones(1, SIZE))


BAD = {
    "none": (lambda rows: rows[:0], "lacks 'deviations'"),
    "one too few": (lambda rows: rows[1:], r"shape \(3, 3\), expected \(4, 3\)"),
    "one too many": (lambda rows: np.concatenate([rows, rows[:1]]), r"shape \(5, 3\)"),
    "a column too few": (lambda rows: rows[:, 1:], r"shape \(4, 2\)"),
    "float64": (lambda rows: rows.astype(float), "a task is float64, not float32"),
    "integers": (lambda rows: rows.astype(int), "of type int64"),
    "NaN": (lambda rows: rows * np.float32(np.nan), "the deviation of a task is not finite"),
    "infinite": (lambda rows: rows + np.float32(np.inf), "the deviation of a task is not finite"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_reply_is_reported_and_the_others_count(what):
    spoil, words = BAD[what]
    collector = collect([(1, reply(1)), (2, reply(2, spoil=spoil)), (3, reply(3))])
    (failed,) = collector.failed
    assert (failed.node, failed.client) == (2, None)
    assert re.search(words, failed.reason), failed.reason
    check(collector.updates(torch.zeros(SIZE), 1), [4, 6, 2])
