"""A slow client costs itself its round, and nobody else theirs."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import fedjoint
from fedjoint._util.limit import LateError, limited, uninterrupted
from fedjoint.node.jobs import Members
from fedjoint.node.turns import Turns

FOREVER = threading.Event()  # never set


class Slow:
    """Clients of which some never come to an end, wherever that is."""

    task_names = ("sign",)

    def __init__(self, stuck, count=10):
        self.stuck, self.sizes, self.tasks = stuck, np.full(count, 20), np.ones((count, 1), bool)

    def client(self, index):
        if index in self.stuck:
            FOREVER.wait(3600)
        x = torch.randn(40, 3, generator=torch.Generator().manual_seed(index))
        examples = fedjoint.Examples(x, {"sign": (x[:, 0] > 0).long()})
        return fedjoint.Client(*map(examples.take, torch.arange(40).split([20, 10, 10])))


def run(tmp_path, stuck, engine="inline", rounds=2, **more):
    problem = fedjoint.Problem(
        [fedjoint.Task("sign", "multiclass", 2)],
        lambda: nn.Linear(3, 4),
        Slow(stuck),
        torch.zeros(1, 3),
    )
    tree = {"rounds": rounds, "engine": {"name": engine, "workers": 2}, "strategy": {"timeout": 2}}
    return fedjoint.simulate({**tree, "output": {"dir": str(tmp_path)}, **more}, problem)


RAY = pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.xdist_group("ray")])


@pytest.mark.parametrize("engine", ["inline", RAY])
def test_of_two_stuck_clients_both_fail_by_name_and_nobody_else(tmp_path, engine, request):
    if engine == "ray":
        request.getfixturevalue("two_workers")
    result = run(tmp_path, {0, 7}, engine)
    for record in result.records:
        assert record.clients.trained == 8
        failed = {failure.client: failure.reason for failure in record.clients.failed}
        assert failed.keys() == {0, 7}
        assert all("within strategy.timeout = 2 s" in reason for reason in failed.values())
    assert result.metrics["test"]["sign"] is not None


def test_who_is_in_time_trains_as_if_nobody_were_late(tmp_path):
    patient = {"rounds": 1, "strategy": {"timeout": 8}}  # with a loaded machine
    plain = run(tmp_path, set(), **patient).heads()
    late = run(tmp_path, {3}, **patient).heads()
    assert sorted(plain) == list(range(10)) and sorted(late) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    for client, head in late.items():
        for name, tensor in head.items():
            torch.testing.assert_close(tensor, plain[client][name])


class Jobs:
    """Makes a turn of what is asked."""

    def attempt(self, act, members, failed):
        yield members, act(members)


def members(block, *ids):
    rows = np.array(ids)
    none = np.zeros(len(ids), np.int64)
    return Members(rows, none + block, rows, none)


def test_late_clients_come_last_one_by_one_until_they_are_in_time_again():
    stuck, turns, seen = {2}, Turns(Jobs()), []

    def act(who):
        seen.append(who.ids.tolist())
        if stuck & set(who.ids.tolist()):
            FOREVER.wait(60)
        return who.ids.sum()

    def go():
        seen.clear()
        failed = []
        work = [members(0, 1, 2), members(1, 3, 4), members(2, 5)]
        done = {tuple(t.members.ids.tolist()): t.result for t in turns.run(work, act, failed, 0.5)}
        return done, [failure.client for failure in failed]

    done, failed = go()
    assert seen == [[1, 2], [3, 4], [5], [1], [2]] and failed == [2]
    assert done == {(3, 4): 7, (5,): 5, (1,): 1}
    assert go() == (done, [2]) and seen == [[1], [3, 4], [5], [2]]
    stuck.clear()
    done, failed = go()
    assert seen == [[1], [3, 4], [5], [2]] and failed == []
    go()
    assert seen == [[1, 2], [3, 4], [5]]


def test_when_time_is_up_the_others_had_no_turn():
    turns, failed = Turns(Jobs()), []
    work = [members(0, 1), members(0, 2), members(1, 3, 4)]

    def act(who):
        end = time.monotonic() + 0.3
        with uninterrupted():
            while time.monotonic() < end:
                pass

    assert list(turns.run(work, act, failed, 0.2)) == []
    assert [failure.client for failure in failed] == [1, 2, 3, 4]
    assert "its turn did not come within strategy.timeout = 0.2 s" in failed[-1].reason


def test_nothing_is_interrupted_in_another_thread():
    done = threading.Event()

    def work():
        with limited(0.01):
            time.sleep(0.05)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert done.is_set()


def test_an_outer_limit_holds_after_an_inner_one():
    with pytest.raises(LateError), limited(0.2):
        with pytest.raises(LateError), limited(0.05):
            FOREVER.wait(60)
        FOREVER.wait(60)
