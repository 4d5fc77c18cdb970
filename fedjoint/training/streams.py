"""The streamed inputs of a few clients, stacked as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedjoint.model.stream import Stream
from fedjoint.model.tree import Input, each


@dataclass(frozen=True)
class Streams:
    """What stands for the inputs of a :class:`fedjoint.training.cohort.Stack`.

    Attributes:
        parts: the clients' inputs.
        rows: of each client, padding included; padding repeats its first example.
        device: where to put what is read.
    """

    parts: Sequence[Stream]
    rows: int
    device: torch.device

    def at(self, rows: slice) -> Input:
        """Read ``[clients, some rows, ...]``."""
        index = torch.arange(self.rows)[rows]
        return self._read(self.parts, [index] * len(self.parts))

    def take(self, index: Tensor) -> Input:
        """Read the rows ``index`` ``[some clients, batch]``, as ``Stack.take`` numbers them."""
        index = index.cpu()
        whose = (index[:, 0] // self.rows).tolist()
        return self._read([self.parts[client] for client in whose], list(index % self.rows))

    def _read(self, parts: Sequence[Stream], places: Sequence[Tensor]) -> Input:
        read = [
            part.read(torch.where(at < len(part), at, 0))
            for part, at in zip(parts, places, strict=True)
        ]
        stacked: Input = each(lambda *tensors: torch.stack(tensors).to(self.device), *read)
        return stacked
