"""Memory: what a model computes takes, and the C library's, kept for the next job."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fedjoint.model.dispatch import Mode
from fedjoint.model.mode import evaluating
from fedjoint.model.tree import Input, cat, first
from fedjoint.training.attention import batchable

Counter = TypeVar("Counter", bound=AbstractContextManager[Any])

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # from malloc.h
_KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Let this process keep up to a GiB of freed memory for itself.

    A job takes and frees megabytes at every step. As it comes, glibc returns them to the system
    and faults them in anew, page by page, which is a tenth of the time of a small model's step.
    Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def computed_bytes(model: nn.Module, example: Input) -> int:
    """Return how many bytes ``model`` computes from ``example`` ``[1, ...]``."""
    return counted(model, example, _Counter()).bytes // 2


def counted(model: nn.Module, example: Input, counter: Counter) -> Counter:
    """Have ``counter`` look on as ``model`` takes ``example`` ``[1, ...]`` twice; return it."""
    # Two, and in evaluation mode, as BatchNorm takes no single one, and keeps statistics.
    with evaluating(model), torch.no_grad(), batchable(first(example).device), counter:
        model(cat([example, example]))
    return counter


class _Counter(Mode):
    """Adds up the results of the operations that are run inside, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += sum(t.nbytes for t in tree_leaves(result) if isinstance(t, Tensor))
        return result
