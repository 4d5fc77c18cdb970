"""Telemetry off, one thread: tests run side by side, the longest first."""

import os

from fedjoint._util.cores import allowed_cores

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    def soonest(item):
        slow = item.get_closest_marker("slow") is not None
        return not slow, item.path.parent.name != "deploy"

    items.sort(key=soonest)


def pytest_xdist_auto_num_workers(config):
    """Run more slow tests at once than there are cores: they wait for processes most of the time."""
    return allowed_cores() * (1 if config.option.markexpr == "not slow" else 2)
