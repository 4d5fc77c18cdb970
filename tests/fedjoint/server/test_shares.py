"""Bounds on what one client, and one node, weighs."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import brentq

from fedjoint.server.shares import limited, limited_together

weights = st.lists(st.floats(0.01, 1e6), min_size=3, max_size=12).map(np.array)


@given(weights, st.floats(0.35, 1.0))
@example(np.array([83248.0, 0.03125, 0.01]), 0.35)
def test_the_bound_is_where_the_heaviest_has_its_share(found, most):
    kept = limited(found, most)
    if found.max() <= most * found.sum():
        assert kept is found
        return

    def excess(bound):
        cut = np.minimum(found, bound)
        return cut.max() - most * cut.sum()

    bound = brentq(excess, found.min() * 1e-3, found.max(), xtol=1e-9 * found.min())
    np.testing.assert_allclose(kept, np.minimum(found, max(bound, found.min())), rtol=1e-6)


def test_where_an_even_share_is_too_much_all_are_alike():
    np.testing.assert_array_equal(limited(np.array([1.0, 5.0, 9.0]), 0.2), [1, 1, 1])


@pytest.mark.parametrize("found", [[1.0, 1e9], [1.0]])
def test_of_two_nobody_is_too_heavy(found):
    np.testing.assert_array_equal(limited(np.array(found), 0.5), found)


def test_forty_clients_of_one_node_weigh_no_more_than_the_others_together():
    owners = np.array([0, 1, 2] + [3] * 40)
    kept = limited_together(np.ones(43), owners, 0.5)
    np.testing.assert_allclose(kept[:3], 1)
    np.testing.assert_allclose(kept[3:].sum(), 3)
