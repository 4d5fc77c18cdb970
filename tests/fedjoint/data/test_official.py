"""Test sets of the data's own: each task's whole set, every example of it with one client."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import TEST, TRAIN, VALID, Dataset
from fedjoint.data.divide import divide
from fedjoint.data.official import split_in, splits_of
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task

TRAINS, TESTS = 300, 90


def dataset(valid=0, owner=None):
    """Examples whose inputs are their positions; the first train, the last are the test set."""
    n = TRAINS + TESTS
    rng = np.random.default_rng(1)
    x = torch.arange(float(n))[:, None]
    y = {"kind": torch.from_numpy(rng.integers(0, 3, n)), "size": torch.rand(n, 1)}
    y["kind"][5], y["size"][n - 2] = -1, torch.nan
    split = np.repeat([TRAIN, VALID, TEST], [TRAINS - valid, valid, TESTS])
    tasks = (Task("kind", "multiclass", 3), Task("size", "regression", 1))
    return Dataset(tasks, Examples(x, y), split=split, owner=owner)


def clients(data, seed=0, mix=(("kind", "size"),), **settings):
    config = DataConfig(**{"clients": 6, "min_examples": 1} | settings)
    federation = divide(data, config, seed, None, lambda _: mix, False)[1]
    return federation, [federation.client(i) for i in range(len(federation.sizes))]


def positions(examples):
    return examples.x[:, 0].long().tolist()


def known(everyone, split, task):
    """Count of each position whose label of ``task`` is known to some client."""
    found = Counter()
    for client in everyone:
        examples = getattr(client, split)
        if task in examples.y:
            y = examples.y[task]
            there = y >= 0 if y.ndim == 1 else ~y.isnan().any(1)
            found.update(examples.x[there, 0].long().tolist())
    return found


MIXES = [[["kind", "size"]], [["kind"], ["size"]], [["kind"], ["size"], ["kind", "size"]]]
PARTITIONS = [
    {"partition": "iid"},
    {"partition": "dirichlet", "alpha": 0.2},
    {"partition": "quantity"},
    {"partition": "shards"},
    {"partition": "iid", "examples_per_client": 20},
    {"partition": "iid", "clients": 200, "examples_per_client": 20},
]


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("settings", PARTITIONS)
def test_every_task_is_tested_on_its_whole_test_set_once(mix, settings):
    data = dataset()
    _, everyone = clients(data, mix=mix, **settings)
    for task in ("kind", "size"):
        labelled = data.known()[:, data.task_names.index(task)]
        official = np.flatnonzero(labelled & (np.arange(len(labelled)) >= TRAINS)).tolist()
        assert known(everyone, "test", task) == Counter(official)
    for client in everyone:
        for part in (client.train, client.valid):
            assert max(positions(part), default=0) < TRAINS


def test_a_client_without_a_label_to_train_on_is_not_tested_on_that_task():
    data = dataset()
    y = {name: labels.clone() for name, labels in data.examples.y.items()}
    y["size"][:TRAINS] = torch.nan
    y["size"][7] = 0.0  # one client alone can learn the task
    data = Dataset(data.tasks, Examples(data.examples.x, y), split=data.split)
    federation, everyone = clients(data, partition="iid", test_fraction=0, valid_fraction=0)
    assert federation.tasks[:, 1].sum() == 1
    assert known(everyone, "test", "size") == Counter(set(range(TRAINS, TRAINS + TESTS)) - {388})


def test_validation_sets_are_divided_alike():
    _, everyone = clients(dataset(valid=40), partition="iid")
    assert known(everyone, "valid", "kind") == Counter(range(TRAINS - 40, TRAINS))
    assert sum(len(c.train) for c in everyone) == TRAINS - 40


def test_what_is_left_for_training_is_split_as_ever():
    federation, everyone = clients(dataset(), partition="iid", valid_fraction=0.1)
    assert [len(c.train) for c in everyone] == federation.sizes.tolist() == [45] * 6
    assert [len(c.valid) for c in everyone] == [5] * 6
    # The same numbers as without a test set of the data's own.
    data = dataset()
    rest = Dataset(data.tasks, data.examples.take(torch.arange(TRAINS)))
    alone = clients(rest, partition="iid", valid_fraction=0.1, test_fraction=0)[1]
    for own, other in zip(everyone, alone, strict=True):
        assert own.train.x.equal(other.train.x) and own.valid.x.equal(other.valid.x)


def test_a_client_is_tested_on_the_likes_of_what_it_trains_on():
    data = dataset()
    _, everyone = clients(data, mix=[["kind"]], partition="dirichlet", alpha=0.3)
    totals = torch.bincount(data.examples.y["kind"][data.rows(TEST)], minlength=3)
    trained = torch.stack(
        [
            sum(
                torch.bincount(part.y["kind"][part.y["kind"] >= 0], minlength=3)
                for part in (c.train, c.valid)
            )
            for c in everyone
        ]
    )
    wanted = trained / trained.sum(0) * totals
    for client, due in zip(everyone, wanted, strict=True):
        got = torch.bincount(client.test.y["kind"], minlength=3)
        assert (got - due).abs().max() <= 1


def test_natural_clients_are_tested_on_their_own_rows():
    owner = np.array([f"c{i % 4}" for i in range(TRAINS + TESTS)])
    _, everyone = clients(dataset(owner=owner), partition="natural")
    for index, client in enumerate(everyone):
        assert positions(client.test) == [
            p for p in range(TRAINS, TRAINS + TESTS) if p % 4 == index
        ]
    owner[-1] = "c9"
    with pytest.raises(UserError, match="'c9' has test or validation examples, but none to"):
        clients(dataset(owner=owner), partition="natural")


def test_a_task_without_a_test_set_is_split_beside_one_that_has_it():
    n = TRAINS + TESTS
    data = dataset()
    origin = np.repeat([0, 1], [150, n - 150])  # the test set is of the second origin
    y = {name: labels.clone() for name, labels in data.examples.y.items()}
    y["kind"][150:], y["size"][:150] = -1, torch.nan
    data = Dataset(data.tasks, Examples(data.examples.x, y), origin, split=data.split)
    for settings in ({}, {"examples_per_client": 20}):
        _, everyone = clients(data, partition="iid", **settings)
        own = known(everyone, "test", "size")
        assert set(own) == set(range(TRAINS, n)) - {n - 2} and set(own.values()) == {1}
        tested = known(everyone, "test", "kind")
        assert tested and max(tested) < 150
        for client in everyone:
            assert not set(positions(client.test)) & set(positions(client.train))


def test_seeds_divide_otherwise_and_one_seed_alike():
    first, again, other = (clients(dataset(), seed)[1] for seed in (0, 0, 1))
    assert positions(first[0].test) == positions(again[0].test) != positions(other[0].test)


def test_all_examples_for_testing():
    data = dataset()
    data = Dataset(data.tasks, data.examples, split=np.full(TRAINS + TESTS, TEST))
    with pytest.raises(UserError, match="no training examples"):
        clients(data)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("TREC.train.all", TRAIN),
        ("TREC.test.all", TEST),
        ("t10k-images-idx3-ubyte.gz", TEST),
        ("train-00000-of-00002.parquet", TRAIN),
        ("validation-00000-of-00001.parquet", VALID),
        ("stsa.fine.dev", VALID),
        ("blood-test.train.csv", TRAIN),
        ("mpqa.all", None),
        ("contest.csv", None),
    ],
)
def test_names_of_splits(name, split):
    assert split_in(name) == split


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["a.csv", "b.csv"], [TRAIN, TRAIN]),
        (["blood-test.csv"], [TRAIN]),
        (["a.test.csv", "b.test.csv"], [TRAIN, TRAIN]),
        (["a.train", "a.test"], [TRAIN, TEST]),
    ],
)
def test_files_are_test_sets_beside_training_files_alone(names, splits):
    assert splits_of([Path(name) for name in names]) == splits
