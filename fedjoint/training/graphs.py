"""Steps that a GPU replays as one: CUDA graphs.

A small model's step is some thirty operations, and telling a GPU of one takes longer than running
it. A graph is told once, and then started as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("fedjoint.training")

#: (parameters, what else it reads, learning rate, buffers of momentum) -> losses, alone in a list
Step = Callable[..., Sequence[Tensor]]

#: Bytes of what a step reads: a larger one runs longer than its operations take to start.
_SMALL = 256 << 20

#: Most graphs, each of which keeps the memory that its step takes.
_MOST = 8


class Graphs:
    """Replaces steps by graphs of them, where that is faster."""

    def __init__(self) -> None:
        self._captured: dict[Hashable, Step] = {}
        self._seen: set[Hashable] = set()

    def of(self, step: Step, changed: int, values: Sequence[Any]) -> Step:
        """Return what does as ``step`` does: a graph of it from the second call on.

        Args:
            step: takes ``values``, whatever their layout in memory.
            changed: how many tensors at the front of ``values`` it changes, beside those that
                follow the learning rate.
            values: tensors, and the learning rate among them.
        """
        if values[0].device.type != "cuda":
            return step
        if sum(value.nbytes for value in values if isinstance(value, Tensor)) > _SMALL:
            return step
        key = step, *(v.shape if isinstance(v, Tensor) else v for v in values)
        if key not in self._captured:
            if key not in self._seen:
                self._seen.add(key)
                return step
            if len(self._captured) == _MOST:
                return step
            self._captured[key] = _captured(step, changed, values)
        return self._captured[key]


def _captured(step: Step, changed: int, values: Sequence[Any]) -> Step:
    """Return a graph of ``step``; ``step`` itself where it cannot be captured."""
    try:
        return _Graph(step, changed, values)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # it waits for the GPU, or copies from the CPU
        log.info("a step is not captured as a CUDA graph: %s", error)
        return step


class _Graph:
    """A step on tensors of its own, into which those of a call are copied, and back.

    Args:
        step: see :class:`Graphs`.
        changed: see :meth:`Graphs.of`.
        values: of the first call; they are left as they are.
    """

    def __init__(self, step: Step, changed: int, values: Sequence[Any]) -> None:
        own = [v.clone() if isinstance(v, Tensor) else v for v in values]
        self._own = [v for v in own if isinstance(v, Tensor)]
        rate = next(at for at, v in enumerate(values) if not isinstance(v, Tensor))
        self._changed = [*range(changed), *range(rate, len(self._own))]
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            step(*own)  # libraries set themselves up, which cannot be captured
        here.wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._results = step(*own)

    def __call__(self, *values: Any) -> Sequence[Tensor]:
        """Take a step; what is returned is overwritten by the next."""
        theirs = [v for v in values if isinstance(v, Tensor)]
        torch._foreach_copy_(self._own, theirs)
        self._graph.replay()
        changed = self._changed
        torch._foreach_copy_([theirs[at] for at in changed], [self._own[at] for at in changed])
        return self._results
