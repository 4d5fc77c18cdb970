"""Private state in memory: a plain dict of (client, round); the server says what counts."""

import numpy as np
import pytest
import torch
from support.states import RUN, newest, stacked, state
from support.tensors import same

from fedjoint.errors import UserError
from fedjoint.node.private import PrivateState
from fedjoint.node.store import StateStore
from fedjoint.runs.ledger import Ledger


def fresh():
    return {"heads.a.weight": torch.full((2, 3), -1.0), "steps": torch.tensor(-1)}


@pytest.fixture
def store(tmp_path):
    with_file = StateStore(tmp_path / "state.sqlite", RUN)
    yield with_file
    with_file.close()


def steps(private, clients, counts):
    """Return the steps in the state of ``clients`` that counts."""
    taken = private.take(np.array(clients), np.array(counts), fresh)
    return taken["steps"].tolist()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("resident", [1, 4, 100])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_taken_is_what_counts(store, stored, resident, seed):
    """Random cohorts train; a round is merged, in part or not at all, and the server says so."""
    random = np.random.default_rng(seed)
    private, ledger = PrivateState(store if stored else None, resident), Ledger()
    cohorts = [random.choice(12, random.integers(1, 7), replace=False) for _ in range(5)]
    for round in range(1, 120):
        if random.random() < 0.6:
            clients = cohorts[random.integers(5)]  # the same clients again
        else:
            clients = random.choice(12, random.integers(1, 7), replace=False)
        counts = ledger.of(clients)
        taken = private.take(clients, counts, fresh)
        for row, (client, count) in enumerate(zip(clients.tolist(), counts.tolist(), strict=True)):
            expected = state(client, count) if count else fresh()
            assert same({name: t[row] for name, t in taken.items()}, expected)
        for tensor in taken.values():
            tensor.fill_(-7)  # a job that fails: what is kept must not change
        if random.random() < 0.8:
            private.put(clients, counts, round, stacked(clients.tolist(), round))
            if random.random() < 0.6:
                share = 1.0 if random.random() < 0.7 else 0.5
                counted = clients[random.random(len(clients)) < share]
                ledger.count(counted, round, np.zeros(len(counted)))
        if random.random() < 0.1:  # a checkpoint
            private.settle(ledger)
            private.flush()
            if stored:
                store.settle(ledger)
                assert newest(store) == dict(
                    zip(ledger.clients.tolist(), ledger.rounds.tolist(), strict=True)
                )
                if random.random() < 0.5:
                    private.forget()


def test_no_more_than_the_resident_clients_are_unwritten(store):
    private = PrivateState(store, resident=3)
    for first in range(0, 12, 2):
        clients = np.arange(first, first + 2)
        private.put(clients, np.zeros(2), 1, stacked(clients.tolist(), 1))
        assert first + 2 - len(newest(store)) <= 3


def test_forgotten_state_that_was_not_written_is_gone(store):
    private = PrivateState(store, resident=100)
    private.put(np.array([1]), np.array([0]), 1, stacked([1], 1))
    private.flush()
    private.put(np.array([1]), np.array([1]), 2, stacked([1], 2))
    private.put(np.array([2]), np.array([0]), 2, stacked([2], 2))
    private.forget([1])
    assert steps(private, [1], [1]) == [1001]
    with pytest.raises(UserError, match="state of client 1 after round 2 is not here"):
        steps(private, [1], [2])
    assert steps(private, [2], [2]) == [2002]


def test_state_that_counts_is_missed_by_name():
    private = PrivateState(None, resident=100)
    with pytest.raises(UserError, match="state of client 5 after round 3 is not here: give"):
        steps(private, [4, 5], [0, 3])


def test_states_that_do_not_fit_together_name_a_client():
    private = PrivateState(None, resident=100)
    private.put(np.array([1]), np.array([0]), 1, {"w": torch.zeros(1, 2)})
    private.put(np.array([2]), np.array([0]), 1, {"w": torch.zeros(1, 3)})
    with pytest.raises(UserError, match="client 2 does not fit that of client 1"):
        private.take(np.array([1, 2]), np.array([1, 1]), lambda: {"w": torch.zeros(2)})
