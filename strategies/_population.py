"""How many clients there are, for the methods whose server state is a mean over all of them."""

from __future__ import annotations

import numpy as np
import torch

from fedjoint.options import Positive, Whole
from fedjoint.server.strategy import JointStrategy, circumstances
from fedjoint.server.updates import Updates


class OverPopulation(JointStrategy):
    """Base of the strategies that divide by the number of clients in the federation.

    The state is ``seen``, the ids ``[n]`` of the clients that took part so far, int64.

    Args:
        population: number of clients; 0 counts those that the nodes have named and that have
            examples, and those that took part before their nodes went away.
        server_lr: factor on the mean update, above zero.
    """

    def __init__(self, population: Whole = 0, server_lr: Positive = 1.0) -> None:
        super().__init__()
        self.given = population
        self.server_lr = server_lr

    def see(self, updates: Updates) -> None:
        """Remember the clients behind ``updates``."""
        seen = self.state.get("seen", updates.clients[:0])
        self.state["seen"] = torch.cat([seen, updates.clients]).unique()

    @property
    def population(self) -> int:
        """Number of clients, at least one; outside a run, of those seen."""
        if self.given:
            return self.given
        seen = self.state.get("seen", torch.zeros(0, dtype=torch.int64)).numpy()
        known = circumstances(self)
        return max(1, len(seen if known is None else np.union1d(seen, known.clients)))
