"""How many examples a node says that its clients are measured on."""

import time
from dataclasses import replace

import numpy as np
import pytest

from fedjoint.config.load import check
from fedjoint.data.around import Around
from fedjoint.node.held import count_held
from fedjoint.problem import build_problem
from fedjoint.protocol.description import MOST_EXAMPLES


class Spoilt(Around):
    """Clients of which number 1 does not come."""

    def __init__(self, data, spoil):
        super().__init__(data)
        self._spoil, self.loaded = spoil, []

    def client(self, index):
        self.loaded.append(index)
        if index == 1:
            self._spoil()
        return self._data.client(index)


def fails():
    raise OSError("disk on fire")


def ends():
    raise SystemExit


def sleeps():
    time.sleep(600)


@pytest.mark.parametrize(("spoil", "after"), [(fails, True), (ends, True), (sleeps, False)])
def test_clients_whose_data_do_not_come_may_have_any_number(spoil, after):
    problem = build_problem(check({"data": {"clients": 3, "test_fraction": 0.5}}))
    spoilt = replace(problem, data=Spoilt(problem.data, spoil))
    held = count_held(spoilt, [0, 1, 2], seconds=3600 if after else 2)
    own = [problem.data.client(place) for place in range(3)]
    expected = np.array([[len(client.valid), len(client.test), 0] for client in own])
    np.testing.assert_array_equal(held[0], expected[0])
    assert held[1].tolist() == [MOST_EXAMPLES, MOST_EXAMPLES, 0]
    assert held[2].tolist() == (expected[2].tolist() if after else held[1].tolist())
