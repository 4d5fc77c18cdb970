"""Where a node's updates go: into rows, into sums of blocks, or into a compressed payload."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.stretches import stretches
from fedjoint.model.layout import Layout
from fedjoint.node.trained import Trained
from fedjoint.protocol.requests import TrainRequest


class Sink:
    """Takes the updates of a request, and forgets them: the base of the others.

    Attributes:
        rows: ``[n, P]`` float32 updates, or ``[b, P]`` means of blocks; None where none are sent.
        buffers: ``[n, B]`` or ``[b, B]`` float32, by how much the shared buffers moved; or None.
        sample: ``[m, P]`` float32 updates of the sampled clients; or None.
    """

    rows: np.ndarray | None = None
    buffers: np.ndarray | None = None
    sample: np.ndarray | None = None

    def add(self, trained: Trained) -> None:
        """Take the updates of a few clients."""

    def close(self) -> None:
        """Hear that nothing else comes."""

    def payload(self) -> dict[str, Tensor]:
        """Return the compressed updates of the clients that trained."""
        return {}

    def deviations(self) -> dict[str, Tensor]:
        """Return what travels of the deviations of the clients (or blocks) that trained."""
        return {}


class Rows(Sink):
    """A row for each client."""

    def __init__(self, clients: int, layout: Layout) -> None:
        self._size = layout.parameters.size
        self._out = self.rows = np.zeros((clients, self._size), np.float32)
        self._moved = self.buffers = np.zeros((clients, layout.size - self._size), np.float32)
        self._apart = _Gathered()

    def add(self, trained: Trained) -> None:
        rows, update, good = trained.rows, trained.update, trained.good
        self._out[rows] = update[:, : self._size].cpu().numpy()
        self._moved[rows] = update[:, self._size :].cpu().numpy()
        if trained.deviations.shape[1]:
            own = trained.deviations.cpu()[torch.from_numpy(good)]
            self._apart.add(rows[good], {"deviations": own.flatten(0, 1)})

    def deviations(self) -> dict[str, Tensor]:
        return self._apart.ordered()


class Sums(Sink):
    """A mean for each block, by the clients' weights; and rows of the few that are sampled."""

    def __init__(self, request: TrainRequest, layout: Layout, device: torch.device) -> None:
        size, blocks = layout.parameters.size, len(request.asked.blocks)
        self._size, self._device = size, device
        self._weights, self._sampled = request.asked.weights, request.sampled
        self._seats = request.sampled.cumsum() - 1
        self._out = self.rows = np.zeros((blocks, size), np.float32)
        self._moved = self.buffers = np.zeros((blocks, layout.size - size), np.float32)
        self._few = self.sample = np.zeros((int(request.sampled.sum()), size), np.float32)
        self._masses = np.zeros(blocks)
        self._apart: dict[int, np.ndarray] = {}
        self._clear(0)

    def _clear(self, block: int) -> None:
        self._total: Tensor | float = 0.0
        self._mass, self._block = 0.0, block

    def add(self, trained: Trained) -> None:
        for at in stretches(trained.blocks):
            if (block := int(trained.blocks[at.start])) != self._block:
                self.close()
                self._clear(block)
            self._add(trained, at)

    def _add(self, trained: Trained, at: slice) -> None:
        rows, update, good = trained.rows[at], trained.update[at], trained.good[at]
        weights = torch.from_numpy(np.where(good, self._weights[rows], 0)).float()
        weights = weights.to(self._device)
        deviations = trained.deviations[at].flatten(1)
        sums = [
            weights @ (part if good.all() else part.nan_to_num()) for part in (update, deviations)
        ]
        self._total = self._total + torch.cat(sums)
        self._mass += float(weights.sum())
        few = np.flatnonzero(self._sampled[rows])
        if len(few):
            own = update[torch.from_numpy(few).to(self._device), : self._size]
            self._few[self._seats[rows[few]]] = own.cpu().numpy()

    def close(self) -> None:
        if not self._mass > 0:
            return
        at, ends = self._block, [self._size, self._size + self._moved.shape[1]]
        assert isinstance(self._total, Tensor)
        mean = (self._total / self._mass).cpu().numpy()
        if self._masses[at]:  # clients of the block that were late come after other blocks
            before = np.concatenate([self._out[at], self._moved[at], self._apart[at]])
            mean = np.average([before, mean], 0, [self._masses[at], self._mass])
        self._masses[at] += self._mass
        self._out[at], self._moved[at], self._apart[at] = np.split(mean.astype(np.float32), ends)

    def deviations(self) -> dict[str, Tensor]:
        apart = np.concatenate([self._apart[at] for at in sorted(self._apart)] or [np.zeros(0)])
        if not apart.size:
            return {}
        return {"deviations": torch.from_numpy(apart).view(-1, self._size)}


class Compressed(Sink):
    """The compressed updates, one client after the other."""

    def __init__(self, clients: int, layout: Layout) -> None:
        self._size = layout.parameters.size
        self._moved = self.buffers = np.zeros((clients, layout.size - self._size), np.float32)
        self._updates, self._apart = _Gathered(), _Gathered()

    def add(self, trained: Trained) -> None:
        self._moved[trained.rows] = trained.update[:, self._size :].cpu().numpy()
        rows = trained.rows[trained.good]
        self._updates.add(rows, trained.payload)
        self._apart.add(rows, trained.deviation_payload)

    def payload(self) -> dict[str, Tensor]:
        return self._updates.ordered()

    def deviations(self) -> dict[str, Tensor]:
        return {f"payload.{name}": values for name, values in self._apart.ordered().items()}


class _Gathered:
    """Tensors of clients, of equally many rows each, to be put in the order of the clients."""

    def __init__(self) -> None:
        self._owners: list[np.ndarray] = []
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, clients: np.ndarray, named: Mapping[str, Tensor]) -> None:
        """Take tensors ``[rows, ...]`` by name, client by client."""
        if not named or not len(clients):
            return
        rows = len(next(iter(named.values())))
        self._owners.append(np.repeat(clients, rows // len(clients)))
        for name, values in named.items():
            self._parts.setdefault(name, []).append(values)

    def ordered(self) -> dict[str, Tensor]:
        """Return all rows by name, in the order of the clients."""
        if not self._owners:
            return {}
        order = torch.from_numpy(np.argsort(np.concatenate(self._owners), kind="stable"))
        return {
            name: torch.cat(parts)[order.to(parts[0].device)] for name, parts in self._parts.items()
        }


def make_sink(
    request: TrainRequest, layout: Layout, device: torch.device, *, shares: bool, compressed: bool
) -> Sink:
    """Return where the updates of a request go.

    Args:
        request: to train.
        layout: of the shared parameters and buffers.
        device: where clients train.
        shares: whether the local method has clients send updates.
        compressed: whether they compress them.
    """
    if not shares:
        return Sink()
    if request.reduce:
        return Sums(request, layout, device)
    kind = Compressed if compressed else Rows
    return kind(len(request.asked.clients), layout)
