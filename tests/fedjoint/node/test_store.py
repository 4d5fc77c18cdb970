"""Private state on disk: a file that many processes share and no kill spoils."""

import signal
import sqlite3
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from support.states import RUN, newest, state
from support.tensors import same

from fedjoint.errors import UserError
from fedjoint.node.store import StateStore
from fedjoint.runs.ledger import Ledger


def rounds_of(store, client):
    """Return the rounds after which ``client`` has a state, by asking for each of them."""
    found = {}
    for round in range(1, 12):
        states = store.read([client], [round])
        if client in states:
            found[round] = states[client]
    assert all(same(found[round], state(client, round)) for round in found)
    return sorted(found)


@pytest.fixture
def store(tmp_path):
    with_file = StateStore(tmp_path / "state.sqlite", RUN)
    yield with_file
    with_file.close()


def test_the_state_of_a_round_is_read(store):
    store.write(2, {0: state(0, 2), 5: state(5, 2)})
    store.write(4, {5: state(5, 4)})
    assert newest(store) == {0: 2, 5: 4}
    assert store.read([0, 5, 7], [1, 3, 4]) == {}
    found = store.read([5, 7, 0], [4, 4, 2])
    assert found.keys() == {0, 5}
    assert same(found[0], state(0, 2)) and same(found[5], state(5, 4))
    assert same(store.read([5], [2])[5], state(5, 2))


def test_settling_deletes_what_does_not_count(store):
    for client, rounds in {0: [1, 2], 1: [3], 2: [2, 3], 4: [1]}.items():
        for round in rounds:
            store.write(round, {client: state(client, round)})
    store.settle(Ledger(np.array([0, 2, 9]), np.array([1, 3, 3])))
    assert {c: rounds_of(store, c) for c in (0, 1, 2, 4)} == {0: [1], 1: [], 2: [2, 3], 4: []}
    store.settle(Ledger())
    assert newest(store) == {}


def test_a_state_without_tensors_is_kept_too(store):
    store.write(1, {3: {}})
    assert store.read([3], [1]) == {3: {}}


def test_pruning_keeps_the_rounds_that_are_to_stay(store):
    for round in (1, 2, 3, 4):
        store.write(round, {7: state(7, round), 8: state(8, round)})
    store.prune(4, Ledger(np.array([7]), np.array([2])))
    assert [r for r in range(5) if store.read([7], [r])] == [2, 4]
    assert [r for r in range(5) if store.read([8], [r])] == [4]
    store.prune(4, Ledger())
    assert [r for r in range(5) if store.read([7], [r])] == [4]


def test_another_store_sees_what_was_written(store):
    store.write(1, {1: state(1, 1)})
    other = StateStore(store.path, RUN)
    assert rounds_of(other, 1) == [1]


def test_pruning_keeps_what_each_kept_checkpoint_needs(store):
    trained = {0: [1, 2, 3, 4, 5, 6, 7], 1: [1], 2: [1, 6], 3: [4, 5], 4: [7]}
    for client, rounds in trained.items():
        for round in rounds:
            store.write(round, {client: state(client, round)})
    checkpoints = [3, 6]
    store.prune(min(checkpoints), Ledger())
    for client, rounds in trained.items():
        for checkpoint in checkpoints:
            newest = max((r for r in rounds if r <= checkpoint), default=None)
            if newest is not None:
                assert same(store.read([client], [newest])[client], state(client, newest))
    # And no more than that.
    assert {c: rounds_of(store, c) for c in trained} == {
        0: [3, 4, 5, 6, 7],
        1: [1],
        2: [1, 6],
        3: [4, 5],
        4: [7],
    }


def test_a_resume_forgets_later_rounds_once(store):
    for round in (1, 2, 3):
        store.write(round, {7: state(7, round)})
    store.begin(generation=0, resumed_from=0)
    assert rounds_of(store, 7) == [1, 2, 3]
    other = StateStore(store.path, RUN)
    other.begin(generation=1, resumed_from=2)
    assert rounds_of(store, 7) == [1, 2]
    store.write(3, {7: state(7, 3)})
    store.begin(generation=1, resumed_from=2)  # a worker that comes late
    store.begin(generation=0, resumed_from=0)
    assert rounds_of(store, 7) == [1, 2, 3]
    store.begin(generation=2, resumed_from=1)
    assert rounds_of(store, 7) == [1]


@pytest.mark.parametrize("damage", ["first", "middle", "last", "short", "empty"])
def test_damaged_state_names_its_client(store, damage):
    store.write(4, {1: state(1, 4), 2: state(2, 4)})
    with sqlite3.connect(store.path) as db:
        (data,) = db.execute("SELECT data FROM state WHERE client = 2").fetchone()
        at = {"first": 0, "middle": len(data) // 2, "last": -1}.get(damage)
        spoilt = bytearray(data)
        if at is None:
            spoilt = spoilt[: len(data) // 2 if damage == "short" else 0]
        else:
            spoilt[at] ^= 0x10
        db.execute("UPDATE state SET data = ? WHERE client = 2", (bytes(spoilt),))
    assert same(store.read([1], [4])[1], state(1, 4))
    with pytest.raises(UserError, match="client 2 after round 4 is damaged") as error:
        store.read([1, 2], [4, 4])
    assert str(store.path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_store_is_one_line(tmp_path):
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"state\.sqlite: file is not a database"):
        StateStore(path, RUN)
    with pytest.raises(UserError, match="check that the folder is there"):
        StateStore(tmp_path / "nowhere" / "state.sqlite", RUN)


def test_a_full_disk_is_said_and_leaves_all_or_nothing(store):
    store.write(1, {1: state(1, 1)})
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    large = {c: {"w": torch.zeros(3000)} for c in range(5)}
    with pytest.raises(UserError, match="full"):
        store.write(2, large)
    assert list(newest(store)) == [1]
    store._db.execute("PRAGMA max_page_count = 100000")
    store.write(2, large)
    assert list(newest(store)) == [0, 1, 2, 3, 4]


def let_go_soon(path, statement):
    """Hold the lock to write to ``path``, do ``statement`` under it, and let go soon."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute(statement)
    threading.Timer(0.2, other.execute, ["COMMIT"]).start()


def test_whoever_opens_a_new_file_waits_for_whoever_makes_it(tmp_path):
    let_go_soon(tmp_path / "state.sqlite", "CREATE TABLE other (x)")
    assert newest(StateStore(tmp_path / "state.sqlite", RUN)) == {}


def test_whoever_begins_waits_for_whoever_writes(store):
    store.write(1, {1: state(1, 1)})
    let_go_soon(store.path, "INSERT INTO generation VALUES (0)")
    store.begin(1, 0)
    assert newest(store) == {}


WRITER = """
import sys, torch
from fedjoint.node.store import StateStore
path, client = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
input()
store = StateStore(path, "a" * 32)
for round in range(1, 11):
    store.write(round, {client: {
        "heads.a.weight": torch.full((2, 3), 100.0 * client + round),
        "steps": torch.tensor(1000 * client + round),
    }})
    store.begin(1, 0)
"""


@pytest.mark.slow
def test_processes_share_a_file_that_none_has_made(tmp_path):
    path = tmp_path / "state.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(client)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for client in range(4)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # all at once
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    store = StateStore(path, RUN)
    # The first to begin deletes what anyone had by then; later rounds are all there.
    for client in range(4):
        assert rounds_of(store, client)[-9:] == list(range(2, 11))


KILLED = """
import os, signal, sys, torch
from fedjoint.node.store import StateStore
store = StateStore(sys.argv[1], "a" * 32)
store._db.set_progress_handler(lambda: os.kill(os.getpid(), signal.SIGKILL), int(sys.argv[2]))
store.write(2, {client: {"steps": torch.tensor(-1)} for client in range(50)})
"""


@pytest.mark.slow
@pytest.mark.parametrize("instructions", [100, 900])  # of SQLite, of which the write takes more
def test_a_kill_in_the_middle_of_a_write_leaves_the_file_as_it_was(tmp_path, instructions):
    path = tmp_path / "state.sqlite"
    StateStore(path, RUN).write(1, {client: state(client, 1) for client in range(50)})
    done = subprocess.run([sys.executable, "-c", KILLED, path, str(instructions)])
    assert done.returncode == -signal.SIGKILL
    store = StateStore(path, RUN)
    assert all(rounds_of(store, client) == [1] for client in range(50))
    assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.write(2, {client: state(client, 2) for client in range(50)})
    assert rounds_of(store, 49) == [1, 2]


def test_nobody_but_the_owner_reads_what_clients_keep(tmp_path):
    own = StateStore(tmp_path / "state.sqlite", "a" * 32)
    own.write(1, {0: {"head": torch.ones(2)}})
    files = list(tmp_path.iterdir())
    assert len(files) > 1  # the write-ahead log, too
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    own.close()
