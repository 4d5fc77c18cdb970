"""Labels at positions: where they are known, and outputs beside them, whatever the task's kind.

The number of dimensions says what labels are. Whole numbers: ``[n]`` classes, ``[n, length]`` of a
sequence, ``[n, height, width]`` of a map. Real ones: ``[n, k]`` targets, ``[n, boxes, 5]`` boxes,
``[n, k, height, width]`` of a map. Outputs have their channels last, but those of a map second.
"""

from __future__ import annotations

import torch
from torch import Tensor


def by_position(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs ``[n, p, k]`` and labels ``[n, p]`` whole, or ``[n, p, k]`` real.

    An example without positions has one. Of boxes there are none.
    """
    if y.is_floating_point():
        return _channels_last(output), _channels_last(y)
    return _channels_last(output), y[:, None] if y.ndim == 1 else y.flatten(1)


def _channels_last(values: Tensor) -> Tensor:
    if values.ndim == 2:
        return values[:, None]
    return values if values.ndim == 3 else values.flatten(2).movedim(1, 2)


def known_positions(y: Tensor) -> Tensor:
    """Return ``[n, p]`` bool, which labels of :func:`by_position` are there."""
    return ~y.isnan().any(-1) if y.is_floating_point() else y >= 0


def is_known(y: Tensor) -> Tensor:
    """Return ``[n]`` bool, whether labels ``y`` are there; of several positions, at one or more."""
    if not y.is_floating_point():
        return y >= 0 if y.ndim == 1 else (y >= 0).flatten(1).any(1)
    if y.ndim == 4:
        return (~y.isnan().any(1)).flatten(1).any(1)
    return ~y.isnan().flatten(1).any(1)


def mean_of_known(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``[n]`` means over the known of ``[n, p]`` positions, and whether there are any.

    Args:
        values: zero where nothing is known.
        known: which positions are.
    """
    if values.shape[1] == 1:
        return values[:, 0], known[:, 0]
    return values.sum(1) / known.sum(1).clamp(min=1), known.any(1)


def summed(known: Tensor, *parts: Tensor) -> Tensor:
    """Return ``[n, 2 + ...]`` float64 statistics of a metric of positions.

    They are whether an example has a label, how many of its positions have, and sums over these.

    Args:
        known: ``[n, p]``, which positions have a label.
        parts: ``[n, p, k]`` each, zero where there is none.
    """
    counts = [known.any(1, keepdim=True), known.sum(1, keepdim=True)]
    return torch.cat([*counts, *(part.sum(1) for part in parts)], 1).double()


def frequencies(y: Tensor, classes: int) -> Tensor:
    """Return ``[classes]`` logarithms of the shares of classes in ``y``, with one more of each."""
    counts = torch.bincount(y[y >= 0], minlength=classes) + 1
    return (counts / counts.sum()).log()
