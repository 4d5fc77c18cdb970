"""Telemetry off, one thread, no waiting for a disk: tests run side by side, the longest first."""

import logging
import os
from contextlib import ExitStack

import pytest

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.fsync = lambda file: None  # no test cuts the power


def pytest_configure():
    import torch  # after OMP_NUM_THREADS is set

    torch.backends.cudnn.allow_tf32 = False  # numbers are compared to float32's rounding


def pytest_collection_modifyitems(items):
    def soonest(item):
        slow = item.get_closest_marker("slow") is not None
        return not slow, item.path.parent.name != "deploy"

    items.sort(key=soonest)


@pytest.fixture(scope="session")
def _ray():
    with ExitStack() as up:
        yield up


@pytest.fixture
def two_workers(_ray):
    """Have two workers of Ray up, for all tests of a process: to start them takes seconds.

    Tests that use them are of the group ``ray``, so that one process has them all.
    """
    import ray

    from fedjoint.config.schema import EngineConfig
    from fedjoint.engines.base import make_engine

    if not ray.is_initialized():
        _ray.enter_context(make_engine(EngineConfig(name="ray", workers=2)).session())


@pytest.fixture(autouse=True)
def _no_ray_by_chance(request, _ray):
    """Have no Ray up for tests that do not ask for it, whatever this process ran before."""
    if "two_workers" not in request.fixturenames:
        _ray.close()


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
