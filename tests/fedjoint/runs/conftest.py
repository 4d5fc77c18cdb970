"""Runs that tests copy."""

import pytest
from support.two_runs import make_runs


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a tiny run that is done, one that was killed, and others of the same settings."""
    return make_runs(tmp_path_factory.mktemp("runs"))
