"""Tests that share what is costly to start are in one process: see CONTRIBUTING.md."""

import pytest


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", [1, 2])
def test_a_test_of_a_group_is_known_by_it(request, number):
    if not hasattr(request.config, "workerinput"):
        pytest.skip("all tests are in one process")
    # pytest-xdist divides tests by this; with pytest 9.2, version 3.8 cannot say it.
    assert request.node.nodeid.endswith("@together"), "install pytest below 9.2"
