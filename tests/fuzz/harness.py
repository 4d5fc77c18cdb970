"""Runs targets, and counts what came of it."""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from targets import Target

_MEMORY = 500_000  # kB that one target may add, of whatever it is given


def fuzz(target: Target, examples: int, seconds: float = 0.0) -> Counter[str]:
    """Return outcome -> how many inputs, all invariants having held.

    Args:
        target: what to try.
        examples: how many inputs.
        seconds: go on with as many others until this time is over; 0: the same ones every time.

    Raises:
        AssertionError: an invariant does not hold; hypothesis shows the smallest such input.
    """
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not seconds,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def run(given: object) -> None:
        with tempfile.TemporaryDirectory() as folder:
            said = target.read(given, Path(folder))
            assert target.read(given, Path(folder)) == said, "two calls differ"
        counts[said.partition(":")[0]] += 1

    run()
    while time.monotonic() < end:
        run()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < _MEMORY, f"{grown} kB more"
    return counts
