"""Examples that become public leave their clients, and nobody else's labels with them."""

import numpy as np
import pytest
import torch
from support.grouped import People

from fedjoint.config.load import check
from fedjoint.data.public import WithoutPublic
from fedjoint.errors import UserError
from fedjoint.problem import build_problem


def test_the_last_examples_of_each_client_are_public():
    people = People(same=True)
    rest = WithoutPublic(people, 0.25)
    assert rest.sizes.tolist() == [6, 9, 5, 8, 7]
    public = rest.public()
    wholes = [people.client(index).train.x for index in range(5)]
    assert torch.equal(public, torch.cat([x[n:] for x, n in zip(wholes, rest.sizes, strict=True)]))
    for index, whole in enumerate(wholes):
        own = rest.client(index)
        assert torch.equal(own.train.x, whole[: rest.sizes[index]])
        assert len(own.test) == len(people.client(index).test)


def test_a_setting_takes_them_out():
    data = {"source": "digits", "clients": 5, "public_share": 0.2}
    without = build_problem(check({"data": {**data, "public_share": 0.0}}))
    problem = build_problem(check({"data": data}))
    taken = without.data.sizes - problem.data.sizes
    assert np.array_equal(taken, np.floor(0.2 * without.data.sizes))
    assert len(problem.public) == taken.sum() and without.public is None


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UserError, match="leaves no example to be public"):
        WithoutPublic(People(same=True), 0.01).public()


def test_a_node_with_data_of_its_own_cannot_take_part(tmp_path):
    config = check({"data": {"source": "digits", "clients": 2, "public_share": 0.2}})
    with pytest.raises(UserError, match="this node has data of its own"):
        build_problem(config, [0, 1])


def test_clients_that_are_kept_out_give_nothing_away():
    data = {"source": "digits", "clients": 5, "public_share": 0.5}
    everyone = build_problem(check({"data": {**data, "public_share": 0.0}})).data
    problem = build_problem(check({"data": {**data, "unseen_clients": 2}}))
    kept_out = problem.data.sizes == 0
    assert kept_out.sum() == 2
    given = np.floor(0.5 * everyone.sizes[~kept_out])
    assert len(problem.public) == given.sum()
    assert np.array_equal(problem.data.sizes[~kept_out], everyone.sizes[~kept_out] - given)
