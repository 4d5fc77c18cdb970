"""A model's mode: it is in training mode but where it is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Have a model in evaluation mode inside, and in training mode again after."""
    model.eval()
    try:
        yield
    finally:
        model.train()
