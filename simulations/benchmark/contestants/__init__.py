"""The contestants: each module has ``measure``, which runs rounds and reports each as it ends."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ..workloads import Workload

#: (seconds of a round, its parts in seconds where they are known)
OnRound = Callable[[float, dict[str, float]], None]

#: (workload, clients, rounds, threads, on_round): the first rounds warm up
Measure = Callable[[Workload, int, int, int, OnRound], None]

#: name -> on how many threads it runs: one, or as many as there are cores
CONTESTANTS: dict[str, tuple[str, ...]] = {
    "flower": ("all",),
    "sequential": ("one", "all"),
    "kernel": ("one", "all"),
    "engine": ("one", "all"),
    "compiled": ("all",),
    "pfl": ("one", "all"),
}


def find(name: str) -> Measure:
    """Return the ``measure`` of a contestant.

    Raises:
        ImportError: what it measures is not installed.
    """
    return import_module(f"{__name__}.{name}").measure
