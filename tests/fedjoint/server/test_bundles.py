"""Which blocks form jobs together."""

import numpy as np
import pytest

from fedjoint.config.load import check
from fedjoint.server.bundles import Block, bundled, mixes
from fedjoint.server.population import Population
from fedjoint.server.strategy import make_strategy


def blocks(*rows):
    return [Block(*row) for row in rows]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("most", [3, 10, 45])
def test_bundles_are_runs_of_blocks_of_one_kind_that_fit(seed, most):
    random = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(4), random.integers(1, 9, 4))
    clients = random.integers(1, 8, len(kinds))
    bundle = bundled(blocks(*((k, c, 9 * c, 9) for k, c in zip(kinds, clients, strict=True))), most)
    assert bundle[0] == 0 and set(np.diff(bundle).tolist()) <= {0, 1}
    for number in np.unique(bundle):
        own, before = bundle == number, bundle == number - 1
        assert len(set(kinds[own])) == 1
        assert own.sum() == 1 or clients[own].sum() <= most
        if number and kinds[before][0] == kinds[own][0]:  # no room was left
            assert clients[before].sum() + clients[own][0] > most


def test_whoever_fits_is_in_one_bundle_and_of_one_client_every_block_is_one():
    some = blocks((0, 3, 9, 3), (0, 4, 12, 3), (0, 2, 6, 3), (1, 1, 3, 3))
    assert bundled(some, 9).tolist() == [0, 0, 0, 1]
    assert bundled(some, 1).tolist() == [0, 1, 2, 3]
    assert bundled([], 9).tolist() == []


def test_a_bundle_ends_where_padding_would_be_most_of_it():
    small, large = (0, 9, 450, 60), (0, 1, 100_000, 100_000)
    assert bundled(blocks(small, small, large), 32).tolist() == [0, 0, 1]
    assert bundled(blocks(small, small, (0, 1, 400, 400)), 32).tolist() == [0, 0, 0]
    even = (0, 4, 80_000, 20_000)  # as many, but nothing is padded
    assert bundled(blocks(even, even), 32).tolist() == [0, 0]


@pytest.mark.parametrize("mixed", [False, True])
def test_a_bundle_has_one_home_and_only_where_it_may_several_sets_of_tasks(mixed):
    home = np.arange(40) % 2
    tasks = np.stack([np.ones(40, bool), np.arange(40) % 3 == 0], 1)
    ids = np.arange(40)
    people = Population(ids, ids + 1, tasks, home, pack=100, mixed=mixed)
    bundle = people.bundle[people.block]
    assert len(set(bundle)) == (2 if mixed else 4)
    for number in set(bundle.tolist()):
        own = bundle == number
        assert len(set(home[own])) == 1
        assert mixed or len(np.unique(tasks[own], axis=0)) == 1


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, True),
        ({"strategy": {"name": "krum"}}, True),
        ({"balance": {"options": {"weights": {"digit": 2.0}}}}, True),
        ({"strategy": {"name": "scaffold"}}, False),  # control variates
        ({"strategy": {"name": "fedprox"}}, False),
        ({"strategy": {"name": "ditto"}}, False),  # evaluates another backbone
        ({"strategy": {"name": "ifca"}}, False),  # several backbones
        ({"strategy": {"name": "taskbalanced", "options": {"tasks_apart": True}}}, False),
        ({"strategy": {"compression": {"name": "int8"}}}, False),
        ({"local": {"method": "independent"}}, False),
        ({"balance": {"name": "uncertainty"}}, False),  # state of the size of its tasks
        ({"model": {"heads": "shared"}}, False),
        ({"local": {"compile": True}}, False),
        ({"strategy": {"fraction": 0.5}}, False),  # others would be together in every round
        ({"evaluate": {"fraction": 0.5}}, False),
    ],
)
def test_clients_mix_only_where_others_tasks_leave_no_trace(tree, expected):
    config = check({"data": {"source": {"name": "digits"}}, **tree})
    assert mixes(make_strategy(config), config) is expected
