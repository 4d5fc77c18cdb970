"""Telemetry off, one thread: tests run side by side, the longest first."""

import logging
import os

import pytest
import torch

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.backends.cudnn.allow_tf32 = False  # numbers are compared to float32's rounding


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
