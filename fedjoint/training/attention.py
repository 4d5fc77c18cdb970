"""Attention in a batched program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def batchable(device: torch.device) -> Iterator[None]:
    """Have attention run as operations that ``vmap`` takes for all clients at once."""
    with unfused(device), _OneProduct():
        yield


@contextmanager
def unfused(device: torch.device) -> Iterator[None]:
    """Have attention run as several operations.

    The CPU's kernel of attention has no batching rule, and nor has the encoder layer that PyTorch
    evaluates as one operation: ``vmap`` would loop over clients.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


class _OneProduct(TorchFunctionMode):
    """Has a linear layer take all positions of all examples as the rows of one matrix.

    Of inputs that do not lie in memory as such, ``vmap`` would make a product for every position
    and copy every client's weights as often. Attention's have their positions first.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            func = _linear
        elif func is F.multi_head_attention_forward:
            query, key, value, *rest = args
            rows = {id(each): each.contiguous() for each in (query, key, value)}
            args = (*(rows[id(each)] for each in (query, key, value)), *rest)
        return func(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if input.ndim < 3:
        return F.linear(input, weight, bias)
    return F.linear(input.flatten(0, -2), weight, bias).unflatten(0, input.shape[:-1])
