"""The layers that clients' models consist of, and how decoders attend to one another."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from fedjoint.model.layout import HEADS, Layout
from fedjoint.server.updates import Updates


def layers(layout: Layout) -> Tensor:
    """``[P]`` int64, 0 in the encoder, and from 1 which layer of which task's decoder it is."""
    numbers: dict[str, int] = {}
    parts = []
    for name, shape in layout.shapes.items():
        layer = name.rpartition(".")[0]
        known = numbers.setdefault(layer, len(numbers) + 1) if name.startswith(HEADS) else 0
        parts.append(torch.full((prod(shape),), known))
    return torch.cat(parts)


def attended(updates: Updates) -> Tensor:
    """``[rows, P]``, what each decoder gets of all clients' and tasks', zero in the encoder.

    Tensors of one name and shape attend to one another, weight by weight and bias by bias: the
    update d of one gets ``softmax(d @ D.T / sqrt(size)) @ D``, D being those of all, its own too.
    """
    found = torch.zeros_like(updates.matrix)
    alike: dict[tuple[str, tuple[int, ...]], list[tuple[str, int]]] = {}
    start = 0
    for name, shape in updates.layout.shapes.items():
        if name.startswith(HEADS):
            _, task, tensor = name.split(".", 2)
            alike.setdefault((tensor, shape), []).append((task, start))
        start += prod(shape)
    for (_, shape), tasks in alike.items():
        size = prod(shape)
        places = []
        for task, first in tasks:
            has = updates.tasks[:, updates.task_names.index(task)]
            places += [(row, slice(first, first + size)) for row in has.nonzero()[:, 0].tolist()]
        if places:
            own = torch.stack([updates.matrix[row, at] for row, at in places])
            mixed = (own @ own.T / size**0.5).softmax(1) @ own
            for (row, at), one in zip(places, mixed, strict=True):
                found[row, at] = one
    return found
