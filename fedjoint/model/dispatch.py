"""What looks on at tensor operations without importing PyTorch's compiler."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Mode(TorchDispatchMode):
    """Base of our dispatch modes.

    PyTorch hides a mode from its compiler, for which it imports all of it at the first operation: a
    second of every process that starts, and none of these is ever compiled.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
