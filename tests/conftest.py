"""Telemetry off, one thread: tests run side by side, those that wait longest first."""

import os
from dataclasses import replace

import pytest

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def make_record():
    """Return a function that makes a round's record up: ``(round, **fields)``."""
    from fedjoint.runs.record import Participation, RoundRecord, Seconds, Steps, Traffic

    plain = RoundRecord(
        round=1,
        objective=0.5,
        loss={},
        evaluation=None,
        spread=None,
        clients=Participation(asked=2, trained=2, ids=(0, 1)),
        steps=Steps(mean=4.0, total=8),
        kept=None,
        fallback=None,
        bytes=Traffic(down=100, up=50),
        seconds=Seconds(0.1, 0.2, 0.1, 0.1, 0.1, 0.6),
        diagnostics=None,
    )
    return lambda round, **fields: replace(plain, round=round, **fields)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.parent.name != "deploy")
