"""A SuperLink for simulations, on a machine that may be busy; options of ``flower-superlink``."""

from __future__ import annotations

import sys
from importlib import import_module

from flwr.common import constant

_START = 600  # seconds that the process of a run has to start


def be_patient() -> None:
    """Give a run's process longer to start than Flower's half a minute.

    It has to be called before Flower's other modules take the numbers over. A process that has
    started has as long between two signs of life as before.
    """
    lasts = constant.HEARTBEAT_PATIENCE * constant.HEARTBEAT_DEFAULT_INTERVAL
    constant.HEARTBEAT_DEFAULT_INTERVAL = _START
    constant.HEARTBEAT_PATIENCE = lasts / _START  # type: ignore[assignment]


def main() -> None:
    """Run the SuperLink."""
    be_patient()
    sys.argv[0] = "flower-superlink"
    import_module("flwr.superlink.cli.flower_superlink").flower_superlink()


if __name__ == "__main__":
    main()
