"""Which round of each client counts: the server's word on private state."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class Ledger:
    """The last round of each client that the server merged.

    A client trains before the server knows whether the round will be merged. So what it then
    keeps to itself (heads, control variates, residuals) counts only once the server says so, and
    the state before that stays until then. Every request names the round whose state counts.

    Attributes:
        clients: ``[n]`` int64 ids, ascending, of the clients with a round that counts.
        rounds: ``[n]`` int64, the last such round of each.
        losses: ``[n]`` float32, the mean training loss of each in that round; NaN where unknown.
    """

    clients: np.ndarray = field(default_factory=_none)
    rounds: np.ndarray = field(default_factory=_none)
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        if not len(self.losses):
            self.losses = np.full(len(self.clients), np.nan, np.float32)

    def of(self, clients: np.ndarray) -> np.ndarray:
        """Return ``[n]`` int64, the last round of each of ``clients`` that counts; 0: none."""
        return self._column(self.rounds, clients, 0)

    def losses_of(self, clients: np.ndarray) -> np.ndarray:
        """Return ``[n]`` float32, the losses of ``clients``; NaN: none."""
        return self._column(self.losses, clients, np.nan)

    def _column(self, column: np.ndarray, clients: np.ndarray, absent: float) -> np.ndarray:
        if not len(self.clients):
            return np.full(len(clients), absent, column.dtype)
        at = np.searchsorted(self.clients, clients).clip(max=len(self.clients) - 1)
        return np.where(self.clients[at] == clients, column[at], column.dtype.type(absent))

    def count(self, clients: np.ndarray, round: int, losses: np.ndarray) -> None:
        """Note that ``round`` counts for ``clients`` ``[n]``, with their ``losses`` ``[n]``."""
        everyone = np.union1d(self.clients, clients)
        rounds, known = self.of(everyone), self.losses_of(everyone)
        at = np.searchsorted(everyone, clients)
        rounds[at], known[at] = round, losses
        self.clients, self.rounds, self.losses = everyone, rounds, known

    def only(self, clients: np.ndarray) -> Ledger:
        """Return the part of ``clients``."""
        here = np.isin(self.clients, clients)
        return Ledger(self.clients[here], self.rounds[here], self.losses[here])

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, for ``Ledger.from_tensors``."""
        return {name: torch.from_numpy(column) for name, column in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Ledger:
        """Return the ledger behind :meth:`tensors`."""
        return cls(**{name: tensor.numpy() for name, tensor in tensors.items()})
