"""The flat layout of the shared state: named tensors <-> one vector of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from fedjoint.errors import UserError

#: Begins the names of a joint model's heads; that of the task follows.
HEADS = "heads."


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the shared tensors, in the order in which they are laid out.

    Attributes:
        shapes: tensor name -> shape. Every tensor is float32.
        buffers: names of the last of them, which are statistics (BatchNorm's) and not learnt.

    Raises:
        UserError: the buffers are not the last tensors.
    """

    shapes: dict[str, tuple[int, ...]]
    buffers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = tuple(self.shapes)
        if names[len(names) - len(self.buffers) :] != self.buffers:
            raise UserError(f"the buffers {list(self.buffers)} are not the last of {list(names)}")

    @property
    def statistics(self) -> Layout:
        """The layout of the last B numbers, the buffers."""
        return Layout({name: self.shapes[name] for name in self.buffers}, self.buffers)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], buffers: Iterable[str] = ()) -> Layout:
        """Return the layout of ``tensors``, in their order."""
        return cls({name: tuple(t.shape) for name, t in tensors.items()}, tuple(buffers))

    @property
    def size(self) -> int:
        """Count of numbers: P parameters, and the buffers' B after them."""
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def parameters(self) -> Layout:
        """The layout of the first P numbers, the parameters."""
        return Layout({n: shape for n, shape in self.shapes.items() if n not in self.buffers})

    def heads(self) -> dict[str, list[slice]]:
        """Return task -> where the numbers of its head are; empty where heads are not shared."""
        found: dict[str, list[slice]] = {}
        start = 0
        for name, shape in self.shapes.items():
            stop = start + prod(shape)
            if name.startswith(HEADS):
                found.setdefault(name.split(".")[1], []).append(slice(start, stop))
            start = stop
        return found

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Split ``flat`` of shape ``[..., size]`` into named views of shape ``[..., *shape]``.

        The views share memory with ``flat``.
        """
        lead, sizes = flat.shape[:-1], [prod(shape) for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), flat.split(sizes, -1) if sizes else (), strict=True)
        return {name: part.view((*lead, *shape)) for (name, shape), part in parts}

    def take(self, flat: Tensor, of: Layout) -> Tensor:
        """Return the numbers ``[..., size]`` of these tensors, of ``flat`` ``[..., of.size]``."""
        if list(self.shapes) == list(of.shapes):
            return flat
        views, lead = of.views(flat), flat.shape[:-1]
        parts = [views[name].reshape(*lead, -1) for name in self.shapes]
        return torch.cat(parts, -1) if parts else flat[..., :0]

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Concatenate named tensors into one float32 vector of shape ``[size]`` (a copy)."""
        parts = [tensors[name].detach().reshape(-1).float() for name in self.shapes]
        return torch.cat(parts) if parts else torch.zeros(0)
