"""Which blocks form jobs together."""

import numpy as np
import pytest

from fedjoint.config.load import check
from fedjoint.server.bundles import bundled, mixes
from fedjoint.server.population import Population
from fedjoint.server.strategy import make_strategy


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("most", [3.0, 10.0, 45.5])
def test_bundles_are_runs_of_blocks_of_one_kind_of_about_the_wanted_size(seed, most):
    random = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(4), random.integers(1, 9, 4))
    sizes = random.integers(1, 8, len(kinds))
    bundle = bundled(sizes, kinds.tolist(), most)
    assert bundle[0] == 0 and set(np.diff(bundle).tolist()) <= {0, 1}
    for number in np.unique(bundle):
        own = bundle == number
        assert len(set(kinds[own])) == 1
        assert own.sum() == 1 or sizes[own].sum() <= most + sizes.max()
    for kind in range(4):  # no more of them than it takes
        own = kinds == kind
        assert len(set(bundle[own])) <= np.ceil(sizes[own].sum() / most)


def test_whoever_fits_is_in_one_bundle_and_by_default_every_block_is_one():
    sizes, kinds = np.array([3, 4, 2, 1]), [0, 0, 0, 1]
    assert bundled(sizes, kinds, 9.0).tolist() == [0, 0, 0, 1]
    assert bundled(sizes, kinds, 1.0).tolist() == [0, 1, 2, 3]
    assert bundled(sizes[:0], [], 9.0).tolist() == []


@pytest.mark.parametrize("mixed", [False, True])
def test_a_bundle_has_one_home_and_only_where_it_may_several_sets_of_tasks(mixed):
    home = np.arange(40) % 2
    tasks = np.stack([np.ones(40, bool), np.arange(40) % 3 == 0], 1)
    ids = np.arange(40)
    people = Population(ids, ids + 1, tasks, home, pack=100.0, mixed=mixed)
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
    ],
)
def test_clients_mix_only_where_others_tasks_leave_no_trace(tree, expected):
    config = check({"data": {"source": {"name": "digits"}}, **tree})
    assert mixes(make_strategy(config), config) is expected
