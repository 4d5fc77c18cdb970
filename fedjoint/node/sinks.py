"""Where a node's updates go: into rows, into sums of blocks, or into a compressed payload."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedjoint.model.layout import Layout
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

    def add(
        self,
        block: int,
        rows: np.ndarray,
        good: np.ndarray,
        update: Tensor,
        payload: Mapping[str, Tensor],
    ) -> None:
        """Take the updates of a few clients of a block.

        Args:
            block: its place in the request.
            rows: ``[c]`` the clients' places in the request.
            good: ``[c]`` bool, whose updates are finite.
            update: ``[c, P + B]``.
            payload: what is to be sent instead of the P parameters, where updates are compressed.
        """

    def close(self) -> None:
        """Hear that nothing else comes."""

    def payload(self) -> dict[str, Tensor]:
        """Return the compressed updates of the clients that trained."""
        return {}


class Rows(Sink):
    """A row for each client."""

    def __init__(self, clients: int, layout: Layout) -> None:
        self._size = layout.parameters.size
        self._out = self.rows = np.zeros((clients, self._size), np.float32)
        self._moved = self.buffers = np.zeros((clients, layout.size - self._size), np.float32)

    def add(
        self,
        block: int,
        rows: np.ndarray,
        good: np.ndarray,
        update: Tensor,
        payload: Mapping[str, Tensor],
    ) -> None:
        self._out[rows] = update[:, : self._size].cpu().numpy()
        self._moved[rows] = update[:, self._size :].cpu().numpy()


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
        self._clear(0)

    def _clear(self, block: int) -> None:
        self._total = torch.zeros(self._size + self._moved.shape[1], device=self._device)
        self._mass, self._block = 0.0, block

    def add(
        self,
        block: int,
        rows: np.ndarray,
        good: np.ndarray,
        update: Tensor,
        payload: Mapping[str, Tensor],
    ) -> None:
        if block != self._block:
            self.close()
            self._clear(block)
        weights = torch.from_numpy(np.where(good, self._weights[rows], 0)).float()
        weights = weights.to(self._device)
        self._total += weights @ (update if good.all() else update.nan_to_num())
        self._mass += float(weights.sum())
        few = np.flatnonzero(self._sampled[rows])
        if len(few):
            own = update[torch.from_numpy(few).to(self._device), : self._size]
            self._few[self._seats[rows[few]]] = own.cpu().numpy()

    def close(self) -> None:
        if not self._mass > 0:
            return
        at = self._block
        mean = (self._total / self._mass).cpu().numpy()
        if self._masses[at]:  # clients of the block that were late come after other blocks
            before = np.concatenate([self._out[at], self._moved[at]])
            mean = np.average([before, mean], 0, [self._masses[at], self._mass])
        self._masses[at] += self._mass
        self._out[at], self._moved[at] = np.split(mean, [self._size])


class Compressed(Sink):
    """The compressed updates, one client after the other."""

    def __init__(self, clients: int, layout: Layout) -> None:
        self._size = layout.parameters.size
        self._moved = self.buffers = np.zeros((clients, layout.size - self._size), np.float32)
        self._parts: dict[str, list[Tensor]] = {}
        self._rows: list[np.ndarray] = []

    def add(
        self,
        block: int,
        rows: np.ndarray,
        good: np.ndarray,
        update: Tensor,
        payload: Mapping[str, Tensor],
    ) -> None:
        self._moved[rows] = update[:, self._size :].cpu().numpy()
        self._rows.append(rows[good])
        for name, values in payload.items():
            self._parts.setdefault(name, []).append(values)

    def payload(self) -> dict[str, Tensor]:
        if not self._rows:
            return {}
        order = torch.from_numpy(np.argsort(np.concatenate(self._rows)))
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
