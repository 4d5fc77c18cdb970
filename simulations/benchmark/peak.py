"""What share of the machine's arithmetic a contestant uses."""

from __future__ import annotations

import time
from functools import cache

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from .workloads import workload

_SIDE, _REPEATS = 2048, 4


@cache
def peak(threads: int) -> float:
    """Return the float32 operations per second of a large product of matrices on ``threads``."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        square = torch.randn(_SIDE, _SIDE)
        best = min(_seconds(square) for _ in range(_REPEATS))
    finally:
        torch.set_num_threads(before)
    return 2 * _SIDE**3 / best


def _seconds(square: torch.Tensor) -> float:
    began = time.perf_counter()
    square @ square
    return time.perf_counter() - began


@cache
def operations(name: str) -> int:
    """Return the float32 operations of one client of a workload, in products and convolutions."""
    made = workload(name)
    model = made.model()
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(made.x[: made.batch]), made.y[: made.batch]).backward()
    total: int = counter.get_total_flops()
    return total * made.steps
