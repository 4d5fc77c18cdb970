"""A model that is too large for the machine is refused before its memory is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fedjoint._util.memory import allowed_bytes, check_fits
from fedjoint.model.dispatch import Mode

_COPIES = 3  # of a model that a run holds at once: as received, as trained, and the gradient


class Bounded(Mode):
    """Refuses the tensor with which what is built inside no longer fits into memory.

    Raises:
        UserError: it does not fit (as the tensor is to be made).
    """

    def __init__(self) -> None:
        super().__init__()
        self._taken, self._most = 0, allowed_bytes() // _COPIES

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        shape = args[0] if args else None
        if isinstance(shape, Sequence) and all(isinstance(length, int) for length in shape):
            self._take(4 * math.prod(shape))
        return func(*args, **(kwargs or {}))

    def _take(self, size: int) -> None:
        self._taken += size
        if self._taken > self._most:
            check_fits(
                f"a model with {self._taken / 4:.3g} parameters or more, of which a run holds "
                f"{_COPIES} copies",
                _COPIES * self._taken,
                "make it smaller (model.backbone.options, data.outputs)",
            )
