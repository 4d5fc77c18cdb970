"""Base of the rules with one backbone per cluster of clients."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates


class Clustered(JointStrategy):
    """What both share: a state ``backbones`` ``[K, P]``, and how the clusters move.

    Clients train the backbone of their cluster, say which it is (``extras["cluster"]`` ``[rows]``
    int64), and an update is *new backbone minus the cluster's*. The global backbone moves to the
    weighted mean of the cluster backbones, by the weight of their clients in this round.
    """

    method = "clustered"

    def said(self, updates: Updates) -> Tensor:
        """Return ``[rows]`` int64, the clusters that the clients say they are in."""
        # Whatever a client says, it is one of those there are.
        return updates.extras["cluster"].long().clamp(0, len(self.state["backbones"]) - 1)

    def move(self, updates: Updates, cluster: Tensor) -> Tensor:
        """Move every cluster by the weighted mean of its updates; return the ``[P]`` step.

        Args:
            updates: the round's updates.
            cluster: ``[rows]`` int64, the cluster of each row.
        """
        backbones = self.state["backbones"]
        member = torch.nn.functional.one_hot(cluster, len(backbones)).T.to(updates.weights)
        share = member * updates.weights
        total = share.sum(1)
        moves = (share / total.clamp(min=1e-12)[:, None]) @ updates.matrix
        self.state["backbones"] = backbones + moves
        return total @ self.state["backbones"] / total.sum() - updates.backbone
