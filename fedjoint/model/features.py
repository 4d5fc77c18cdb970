"""What a backbone returns: a tensor, or a dict of them, and how it is described to a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedjoint.errors import UserError

#: of one example: the length of a vector, or the shape of anything else
Shape = int | tuple[int, ...]

#: what a head is built for: the shape of the features, or of each by name
Features = Shape | dict[str, Shape]


def describe(features: Any, examples: int) -> Features:
    """Return what a head is told of the features of ``examples`` examples.

    Raises:
        UserError: they are no tensors with a row for each example.
    """
    if isinstance(features, Mapping) and features:
        return {str(name): _shape(part, examples) for name, part in features.items()}
    return _shape(features, examples)


def _shape(part: Any, examples: int) -> Shape:
    if not isinstance(part, Tensor) or part.ndim < 2 or len(part) != examples:
        has = list(part.shape) if isinstance(part, Tensor) else type(part).__name__
        raise UserError(
            f"it makes {has}: return a tensor [{examples}, features], [{examples}, length, "
            f"features] or [{examples}, channels, height, width], or a dict of such"
        )
    return part.shape[1] if part.ndim == 2 else tuple(part.shape[1:])


def in_words(shape: Features) -> str:
    """Return features as people write them."""
    if isinstance(shape, dict):
        return "{" + ", ".join(f"{name}: {in_words(part)}" for name, part in shape.items()) + "}"
    return str([shape] if isinstance(shape, int) else list(shape))


def rank(shape: Shape) -> int:
    """Return the number of dimensions of one example's features."""
    return 1 if isinstance(shape, int) else len(shape)
