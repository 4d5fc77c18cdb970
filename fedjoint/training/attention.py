"""Attention in a batched program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def batchable(device: torch.device) -> Iterator[None]:
    """Have attention run as operations that ``vmap`` takes for all clients at once.

    The CPU's kernel of attention has no batching rule, and nor has the encoder layer that PyTorch
    evaluates as one operation: ``vmap`` would loop over clients.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        if device.type == "cpu":
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
