"""What a federation says of itself stays true of those that are made from it."""

import numpy as np
import pytest
from support.grouped import People

from fedjoint.data.of_group import OfGroup
from fedjoint.data.public import WithoutPublic
from fedjoint.data.unseen import Seen

LEGEND = ("x0: age", "ring: inner")
AROUND = {
    "unseen": lambda data: Seen(data, np.array([1])),
    "group": lambda data: OfGroup(data, np.array([True, True, False, False, True])),
    "public": lambda data: WithoutPublic(data, 0.5, [1]),
}


@pytest.mark.parametrize("make", AROUND.values(), ids=AROUND)
def test_names_of_inputs_and_classes_stay(make):
    people = People(same=True)
    before = people.sizes.copy(), people.tasks.copy()
    people.legend = LEGEND
    around = make(people)
    assert around.legend == LEGEND and around.task_names == people.task_names
    assert around.client(0).train.y.keys() == people.client(0).train.y.keys()
    assert np.array_equal(people.sizes, before[0]) and np.array_equal(people.tasks, before[1])


def test_who_is_kept_out_has_neither_examples_nor_tasks():
    people = People(same=True)
    seen = Seen(people, np.array([1]))
    client = seen.client(1)
    assert not len(client.train) and not client.train.y and not len(client.test)
    assert client.train.x.shape[1:] == people.client(1).train.x.shape[1:]
    assert seen.sizes[1] == 0 and not seen.tasks[1].any()
