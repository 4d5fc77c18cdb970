"""Data are compared with what a run has loaded, and named where they have changed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedjoint.data.base import Client, Examples
from fedjoint.data.fingerprint import fingerprint
from fedjoint.data.unchanged import EVERYONE, central_fingerprint, check_unchanged
from fedjoint.errors import UserError


def examples(seed):
    return Examples(torch.full((2, 3), float(seed)), {"a": torch.tensor([0, 1])})


def federation(seeds):
    clients = [Client(*map(examples, (seed, seed + 0.25, seed + 0.5))) for seed in seeds]
    return SimpleNamespace(sizes=np.full(len(clients), 2), client=clients.__getitem__)


def known(seeds, ids):
    data = federation(seeds)
    return {id: fingerprint(data.client(place)) for place, id in enumerate(ids)}


def test_the_same_data_pass_wherever_they_live():
    check_unchanged(federation([1, 2, 3]), known([1, 2, 3], [0, 1, 2]))
    check_unchanged(federation([3, 1]), known([1, 3], [7, 5]), places={7: 1, 5: 0})
    check_unchanged(
        federation([1]), {EVERYONE: central_fingerprint(examples(4))}, None, examples(4)
    )


@pytest.mark.parametrize(
    ("seeds", "before", "places", "central", "whose"),
    [
        ([1, 9], known([1, 2], [0, 1]), None, None, "of client 1"),
        ([2, 1], known([1, 2], [0, 1]), None, None, "of client 0"),
        ([1], known([1, 2], [0, 1]), None, None, "of client 1"),
        ([1, 2], known([1, 2], [7, 5]), {7: 0}, None, "of client 5"),
        ([1, 2], known([1, 2], [7, 5]), {7: 1, 5: 0}, None, "of client 7"),
        ([1], {EVERYONE: central_fingerprint(examples(4))}, None, examples(5), "every client is"),
        ([1], {EVERYONE: central_fingerprint(examples(4))}, None, None, "every client is"),
    ],
)
def test_changed_data_are_refused_by_name(seeds, before, places, central, whose):
    with pytest.raises(UserError, match=f"the data .*{whose}.* are not those that") as error:
        check_unchanged(federation(seeds), before, places, central)
    assert "\n" not in str(error.value)


def test_data_under_other_names_have_changed():
    """The columns of a table, exchanged by their names alone, would make a wrong model's card."""
    data = federation([1])
    data.legend = ("age", "dose")
    before = {0: fingerprint(data.client(0), data.legend)}
    check_unchanged(data, before)
    data.legend = ("dose", "age")
    with pytest.raises(UserError, match="the data of client 0 are not those"):
        check_unchanged(data, before)
