"""Base of the strategies that have a backbone for each client."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._places import known_of, nobody, noted


class OfClients(JointStrategy):
    """Has a backbone of every client; backbone 0 is for those that have not trained yet.

    The state holds ``place`` ``[2, ids]`` int64, every client so far and its backbone.
    """

    by_part = False  # clients of one group would have other places in another's part

    def receives(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        return known_of(clients, self.state["place"], 0)

    def join(self, updates: Updates) -> tuple[Tensor, Tensor]:
        """Give those who trained for the first time backbones of their own.

        Returns:
            ``[K']`` int64, which of the K backbones each is, or begins as; ``[rows]`` int64, which
            of the K' is whose.
        """
        count, clients = len(updates.backbones), updates.clients
        known = self.state.get("place", nobody())
        new = known_of(clients, known, 0) == 0
        known = noted(known, clients[new], count + torch.arange(int(new.sum())))
        self.state["place"] = known
        of = torch.cat([torch.arange(count), updates.received[new]])
        return of, known_of(clients, known, 0)
