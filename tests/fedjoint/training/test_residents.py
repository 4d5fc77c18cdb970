"""Clients' data is kept once, within bounds, and is the same wherever it comes from."""

import numpy as np
import pytest
import torch

from fedjoint.data.base import Client, Examples
from fedjoint.model.tasks import Task
from fedjoint.training.cohort import gather
from fedjoint.training.residents import Residents

CPU = torch.device("cpu")
TASK = Task("a", "multiclass", 2)
ROWS = 50


class Data:
    """Ten clients of unequal sizes; ``asked`` counts who was read."""

    def __init__(self):
        self.asked, self.tasks = [], np.ones((100, 1), bool)

    def client(self, index):
        self.asked.append(index)
        random = torch.Generator().manual_seed(index)
        x = torch.randn(ROWS + index, 3, generator=random)
        examples = Examples(x, {"a": (x[:, 0] > 0).long()})
        return Client(examples, examples.take(torch.arange(3)), examples.take(torch.arange(0)))


def residents(most=1 << 30):
    data = Data()

    def make(places, clients, known):
        return gather(data, [TASK], lambda x, who: x, places, clients, known, CPU)

    return data, Residents(make, most)


def same(cohort, places):
    """Check a cohort against the data, client by client."""
    for row, place in enumerate(places):
        expected, found = Data().client(place), cohort.client(row)
        for split in ("train", "valid", "test"):
            mine, theirs = getattr(found, split), getattr(expected, split)
            assert torch.equal(mine.x, theirs.x) and torch.equal(mine.y["a"], theirs.y["a"])


def ask(kept, places):
    cohort = kept.cohort(np.array(places), np.array(places))
    same(cohort, places)
    return cohort


def test_a_cohort_that_is_here_is_not_made_again():
    data, kept = residents()
    assert ask(kept, [1, 2]) is ask(kept, [1, 2])
    assert data.asked == [1, 2]


def test_clients_move_to_the_cohort_that_asks_without_being_read_again():
    data, kept = residents()
    ask(kept, [1, 2, 3, 4])
    ask(kept, [3, 5])
    ask(kept, [2, 5])
    assert data.asked == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("drawn", [1, 2, 5, 9])
def test_room_is_bounded_by_the_clients_however_they_are_drawn(drawn):
    _, kept = residents()
    random = np.random.default_rng(0)
    whole = residents()[1].cohort(np.arange(10), np.arange(10)).nbytes
    for _ in range(60):
        ask(kept, sorted(random.choice(10, drawn, replace=False).tolist()))
        assert sum(cohort.nbytes for cohort in kept._cohorts.values()) == kept._bytes
        assert kept._bytes <= 2.3 * whole  # padding, too


def test_beyond_its_room_the_least_recently_used_is_forgotten():
    data, kept = residents(most=1)
    ask(kept, [1, 2])
    ask(kept, [3])
    ask(kept, [3])
    ask(kept, [1, 2])
    assert data.asked == [1, 2, 3, 1, 2]
