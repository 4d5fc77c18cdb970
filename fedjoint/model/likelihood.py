"""Minus the logarithm of the probability of the right class, one operation for all clients."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def negative_log(logs: Tensor, y: Tensor) -> Tensor:
    """Return ``[n]``, zero where the class is missing.

    ``torch.nn.functional.nll_loss`` does so, but under ``torch.func.vmap`` PyTorch puts it together
    from a dozen operations, which take longer to start than to run.

    Args:
        logs: ``[n, classes]``, the classes' logarithms.
        y: ``[n]`` int64, below zero where missing.
    """
    found: Tensor = _NegativeLog.apply(logs, y)
    return found


def _of_rows(logs: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(logs, y.clamp(min=-1), ignore_index=-1, reduction="none")


class _NegativeLog(Function):
    @staticmethod
    def forward(logs: Tensor, y: Tensor) -> Tensor:
        return _of_rows(logs, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        logs, y = inputs
        ctx.save_for_backward(y)
        ctx.shape = logs.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        own = -gradient * (y >= 0)
        places = y.clamp(min=0)[:, None]
        return own.new_zeros(ctx.shape).scatter(1, places, own[:, None]), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], logs: Tensor, y: Tensor
    ) -> tuple[Tensor, int]:
        """Take the rows of all clients, one below the other, where PyTorch differentiates them."""
        logs, y = (
            part.expand(info.batch_size, *part.shape) if dim is None else part.movedim(dim, 0)
            for part, dim in zip((logs, y), in_dims, strict=True)
        )
        return _of_rows(logs.flatten(0, 1), y.flatten()).view(y.shape), 0
