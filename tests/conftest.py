"""Telemetry off, one thread, no waiting for a disk: tests run side by side, the longest first."""

import logging
import os

import pytest

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.fsync = lambda file: None  # no test cuts the power


def pytest_collection_modifyitems(items):
    def soonest(item):
        slow = item.get_closest_marker("slow") is not None
        return not slow, item.path.parent.name != "deploy"

    items.sort(key=soonest)


@pytest.fixture
def own_logger():
    """Yield fedjoint's logger, and take away what a test gives it."""
    logger = logging.getLogger("fedjoint")
    level, before = logger.level, list(logger.handlers)
    yield logger
    for handler in [handler for handler in logger.handlers if handler not in before]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
