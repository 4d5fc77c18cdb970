"""Losses per example: ``(output, y) -> (loss [n], known [n])``, zero where a label is missing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def multiclass_loss(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy per example: ``[n, classes]``, ``[n]`` -> loss ``[n]``, known ``[n]``."""
    known = y >= 0
    # As F.cross_entropy, which under vmap is put together from slower parts.
    chosen = F.log_softmax(output, 1).gather(1, y.clamp(min=0)[:, None]).squeeze(1)
    return torch.where(known, -chosen, 0), known


def multilabel_loss(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy per example, averaged over the labels ``[n, labels]``."""
    known = ~y.isnan().any(-1)
    loss = F.binary_cross_entropy_with_logits(output, y.nan_to_num(), reduction="none").mean(-1)
    return torch.where(known, loss, 0), known


def regression_loss(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error per example, averaged over the targets ``[n, outputs]``."""
    known = ~y.isnan().any(-1)
    return torch.where(known, ((output - y.nan_to_num()) ** 2).mean(-1), 0), known


def per_example(loss: nn.Module) -> Loss:
    """Return a loss of ``torch.nn`` as one per example that leaves missing labels out.

    Args:
        loss: has a ``reduction``, which is ignored.
    """
    loss = copy.deepcopy(loss)
    each: Any = loss
    each.reduction = "none"

    def losses(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        whole = not y.is_floating_point()
        known = y >= 0 if whole else ~y.isnan().any(-1)
        values = loss(output, y.clamp(min=0) if whole else y.nan_to_num())
        values = values.flatten(1).mean(1) if values.ndim > 1 else values
        return torch.where(known, values, 0), known

    return losses
