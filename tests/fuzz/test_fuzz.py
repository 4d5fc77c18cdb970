"""A few seconds of what ``python -m tests.fuzz`` does for minutes."""

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import fuzz
from targets import TARGETS

EXAMPLES = {"settings": 30, "data files": 30, "messages": 15}


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_the_invariants_hold(name, caplog):
    caplog.set_level(logging.CRITICAL)
    counts = fuzz(TARGETS[name], EXAMPLES.get(name, 5))
    assert counts.total() > 0
