from dataclasses import replace

import numpy as np
import pytest
import torch

from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.data.federation import DrawnFederation, PartitionedFederation
from fedjoint.data.split import Splitter
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task

FRACTIONS = {"valid_fraction": 0.1, "test_fraction": 0.2}


def federation(dataset, parts, holds=None, **settings):
    holds = np.ones((len(parts), len(dataset.tasks)), bool) if holds is None else holds
    splitter = Splitter(dataset, settings.pop("seed", 0), **FRACTIONS)
    return PartitionedFederation(dataset, parts, holds, splitter, **settings)


def positions(examples):
    """The inputs of ``two_tasks`` are their own positions."""
    return examples.x[:, 0].long().tolist()


def test_splits_are_disjoint_and_exhaustive(two_tasks):
    parts = [np.arange(0, 50), np.arange(50, 57), np.arange(57, 120)]
    built = federation(two_tasks, parts)
    for index, part in enumerate(parts):
        client = built.client(index)
        used = [*positions(client.train), *positions(client.valid), *positions(client.test)]
        assert sorted(used) == part.tolist()
        assert len(client.train) == built.sizes[index]
        assert (len(client.valid), len(client.test)) == (len(part) // 10, len(part) // 5)
        for examples in (client.train, client.valid, client.test):
            for name, y in examples.y.items():
                assert y.equal(two_tasks.examples.y[name][positions(examples)])
    assert built.sizes.dtype == np.int64 and built.tasks.dtype == bool


def test_splits_depend_on_seed_and_client_alone(two_tasks):
    own, other = np.arange(40), np.arange(40, 120)
    trained = positions(federation(two_tasks, [own, other]).client(0).train)
    assert trained == positions(federation(two_tasks, [own, other[:9]]).client(0).train)
    assert trained != positions(federation(two_tasks, [own, other], seed=1).client(0).train)
    assert trained != positions(federation(two_tasks, [other, own]).client(1).train)


def test_a_client_sees_its_own_tasks_only(two_tasks):
    holds = np.array([[True, False], [False, True]])
    built = federation(two_tasks, [np.arange(60), np.arange(60, 120)], holds)
    assert built.tasks.tolist() == holds.tolist()
    assert [list(built.client(i).test.y) for i in (0, 1)] == [["kind"], ["size"]]


def test_an_empty_client_never_trains(two_tasks):
    built = federation(two_tasks, [np.arange(120), np.arange(0)])
    assert built.sizes.tolist() == [84, 0] and not built.tasks[1].any()
    client = built.client(1)
    assert [len(client.train), len(client.valid), len(client.test)] == [0, 0, 0]
    assert client.train.x.shape == (0, 1)


def test_a_task_without_labels_is_not_the_client_s(two_tasks):
    y = two_tasks.examples.y | {"kind": two_tasks.examples.y["kind"].clone()}
    y["kind"][:60] = -1
    dataset = replace(two_tasks, examples=Examples(two_tasks.examples.x, y))
    parts = [np.arange(60), np.arange(60, 120)]
    built = federation(dataset, parts)
    assert built.tasks.tolist() == [[False, True], [True, True]]
    assert list(built.client(0).train.y) == ["size"]
    with pytest.raises(UserError, match="client 0 has 60 examples but no label of its tasks"):
        federation(dataset, parts, np.array([[True, False], [True, True]]))


def test_no_clients(two_tasks):
    for make in (
        lambda: federation(two_tasks, [], np.zeros((0, 2), bool)),
        lambda: DrawnFederation(two_tasks, np.zeros((0, 2), bool), examples=8, seed=0, **FRACTIONS),
    ):
        with pytest.raises(UserError, match=r"no clients; set data\.clients to 1 or more"):
            make()


def test_standardising_uses_the_client_s_own_training_examples(two_tasks):
    parts = [np.arange(60), np.arange(60, 120)]
    raw, scaled = (federation(two_tasks, parts, standardise=s) for s in (False, True))
    for index in (0, 1):
        before, after = raw.client(index), scaled.client(index)
        mean, deviation = before.train.x.numpy().mean(0), before.train.x.numpy().std(0)
        for name in ("train", "valid", "test"):
            expected = (getattr(before, name).x.numpy() - mean) / deviation
            np.testing.assert_allclose(getattr(after, name).x, expected, atol=1e-5)


def test_standardising_leaves_constants_finite():
    examples = Examples(torch.full((10, 1), 3.0), {"t": torch.zeros(10, 1)})
    dataset = Dataset((Task("t", "regression", 1),), examples)
    built = federation(dataset, [np.arange(10)], standardise=True)
    assert built.client(0).train.x.eq(0).all()


def drawn(dataset, holds, examples=14, seed=0):
    return DrawnFederation(dataset, holds, examples=examples, seed=seed, **FRACTIONS)


def test_draws_do_not_leak_between_clients(two_tasks):
    built = drawn(two_tasks, np.ones((200, 2), bool))
    clients = [built.client(i) for i in range(200)]
    kinds = [
        {p for client in clients for p in positions(getattr(client, name))}
        for name in ("train", "valid", "test")
    ]
    assert set.union(*kinds) == set(range(120)), "some example is never drawn"
    assert sum(len(kind) for kind in kinds) == 120, "an example is in two splits"
    for client, size in zip(clients, built.sizes, strict=True):
        assert len(set(positions(client.train))) == len(client.train) == size == 14
        assert (len(client.valid), len(client.test)) == (1, 3)


def test_draws_depend_on_seed_and_client_alone(two_tasks):
    few, many, other = (
        drawn(two_tasks, np.ones((n, 2), bool), seed=s) for n, s in ((3, 0), (9, 0), (3, 1))
    )
    assert positions(few.client(2).train) == positions(many.client(2).train)
    assert positions(few.client(2).train) != positions(few.client(1).train)
    assert positions(few.client(2).train) != positions(other.client(2).train)


def test_draws_are_labelled_for_a_task_of_the_client(two_tasks):
    y = two_tasks.examples.y | {"kind": two_tasks.examples.y["kind"].clone()}
    y["kind"][::2] = -1
    dataset = replace(two_tasks, examples=Examples(two_tasks.examples.x, y))
    built = drawn(dataset, np.array([[True, False], [True, True]]))
    assert (built.client(0).train.y["kind"] >= 0).all()
    assert (built.client(1).train.y["kind"] < 0).any()


def test_too_many_draws(two_tasks):
    with pytest.raises(UserError, match=r"cannot draw .* lower data\.examples_per_client"):
        drawn(two_tasks, np.ones((2, 2), bool), examples=121)
