import numpy as np
import pytest

from fedjoint.data import partition
from fedjoint.errors import UserError

LABELS = np.random.default_rng(3).integers(0, 10, 1000)

PARTITIONERS = {
    "iid": lambda rng: partition.iid(1000, 30, rng, minimum=8),
    "quantity": lambda rng: partition.quantity(1000, 30, rng, alpha=0.1, minimum=8),
    "dirichlet": lambda rng: partition.dirichlet(LABELS, 30, rng, alpha=0.05, minimum=8),
    "dirichlet, tiny alpha": lambda rng: partition.dirichlet(
        LABELS, 30, rng, alpha=1e-3, minimum=8
    ),
    "dirichlet, no slack": lambda rng: partition.dirichlet(LABELS, 125, rng, alpha=0.1, minimum=8),
    "shards": lambda rng: partition.shards(LABELS, 30, rng, per_client=3, minimum=8),
    "natural": lambda rng: partition.natural(LABELS % 7, minimum=8),
}


@pytest.mark.parametrize("name", PARTITIONERS)
def test_uses_every_example_once_and_keeps_the_minimum(name):
    parts = PARTITIONERS[name](np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert min(len(part) for part in parts) >= 8


@pytest.mark.parametrize("name", sorted(PARTITIONERS.keys() - {"natural"}))
def test_is_decided_by_the_generator(name):
    first, again, other = (PARTITIONERS[name](np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def entropy(parts):
    """Mean entropy of the clients' labels, in nats: an independent measure of label skew."""
    total = 0.0
    for part in parts:
        share = np.bincount(LABELS[part], minlength=10) / len(part)
        total -= (share[share > 0] * np.log(share[share > 0])).sum() / len(parts)
    return total


def test_label_skew_grows_as_alpha_falls():
    measured = [
        entropy(partition.dirichlet(LABELS, 10, np.random.default_rng(0), alpha=a, minimum=8))
        for a in (0.01, 0.1, 1, 10, 1000)
    ]
    assert measured == sorted(measured)
    assert measured[0] < 0.8 and measured[-1] > 0.95 * np.log(10)


def test_size_skew_grows_as_alpha_falls():
    spread = []
    for alpha in (0.1, 1, 100):
        parts = partition.quantity(1000, 20, np.random.default_rng(0), alpha=alpha)
        spread.append(np.std([len(part) for part in parts]))
    assert spread == sorted(spread, reverse=True)


def test_iid_sizes_differ_by_at_most_one():
    sizes = [len(part) for part in partition.iid(1000, 30, np.random.default_rng(0))]
    assert max(sizes) - min(sizes) <= 1


def test_shards_hold_few_labels():
    labels = np.repeat(np.arange(10), 100)
    parts = partition.shards(labels, 50, np.random.default_rng(0), per_client=2)
    assert max(len(np.unique(labels[part])) for part in parts) == 2


def test_natural_follows_the_owners():
    owners = np.array(["b", "a", "b", "c", "a"])
    parts = partition.natural(owners)
    assert [sorted(part.tolist()) for part in parts] == [[1, 4], [0, 2], [3]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rng: partition.iid(10, 4, rng, minimum=3), "10 examples do not give 4 clients 3"),
        (lambda rng: partition.quantity(10, 4, rng, alpha=1, minimum=3), "lower data.clients"),
        (lambda rng: partition.dirichlet(LABELS, 999, rng, alpha=1, minimum=2), "min_examples"),
        (lambda rng: partition.shards(LABELS, 600, rng, per_client=2), "1200 shards"),
        (
            lambda rng: partition.natural(np.array(["x", "y", "y"]), minimum=2),
            "client 'x' has 1 examples; lower data.min_examples",
        ),
    ],
)
def test_says_when_the_examples_do_not_suffice(make, message):
    with pytest.raises(UserError, match=message):
        make(np.random.default_rng(0))


def test_without_a_minimum_a_client_may_be_empty():
    parts = partition.dirichlet(np.zeros(5, int), 20, np.random.default_rng(0), alpha=0.1)
    assert min(len(part) for part in parts) == 0
    assert sum(len(part) for part in parts) == 5
