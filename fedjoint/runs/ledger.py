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
    """

    clients: np.ndarray = field(default_factory=_none)
    rounds: np.ndarray = field(default_factory=_none)

    def of(self, clients: np.ndarray) -> np.ndarray:
        """Return ``[n]`` int64, the last round of each of ``clients`` that counts; 0: none."""
        if not len(self.clients):
            return np.zeros(len(clients), np.int64)
        at = np.searchsorted(self.clients, clients).clip(max=len(self.clients) - 1)
        return np.where(self.clients[at] == clients, self.rounds[at], 0)

    def count(self, clients: np.ndarray, round: int) -> None:
        """Note that ``round`` counts for ``clients``."""
        everyone = np.union1d(self.clients, clients)
        rounds = self.of(everyone)
        rounds[np.searchsorted(everyone, clients)] = round
        self.clients, self.rounds = everyone, rounds

    def only(self, clients: np.ndarray) -> Ledger:
        """Return the part of ``clients``."""
        here = np.isin(self.clients, clients)
        return Ledger(self.clients[here], self.rounds[here])

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, for ``Ledger.from_tensors``."""
        return {"clients": torch.from_numpy(self.clients), "rounds": torch.from_numpy(self.rounds)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Ledger:
        """Return the ledger behind :meth:`tensors`."""
        return cls(tensors["clients"].numpy(), tensors["rounds"].numpy())
