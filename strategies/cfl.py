"""CFL: a cluster that stands still while its clients move is split."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from fedjoint.options import Count, NotNegative, UpToOne
from fedjoint.server.steps import Steps
from fedjoint.server.strategy import JointStrategy, circumstances
from fedjoint.server.updates import Updates

from ._places import known_of, nobody, noted


class CFL(JointStrategy):
    """Clustered federated learning: a cluster that stands still while its clients move is split.

    Over the last rounds r, a cluster's backbone has come as far as ``|sum_r m_r|``, m_r ``[P]``
    being the weighted mean of its updates, on a way of ``sum_r l_r``, l_r being their mean length
    or, if that is more, ``first``, the mean length of all updates in the run's first round. Both
    sums forget: a round counts ``1 - strategy.fraction`` of the one after it. So they are about
    one pass over the clients, and about this round alone if everyone trains in it. The cluster
    splits when

    - it stands still, its clients cancelling out or the learning rate decaying:
      ``|sum_r m_r| < still * sum_r l_r``;
    - its clients move: the longest update of this round is longer than ``moving * first``, both
      over the learning rates of their rounds;
    - they fall apart: of the two parts with the least similar most similar pair across them (what
      single linkage leaves when it stops at two), that pair has a cosine of at most ``across``.

    Both parts start from the old backbone and move by their own clients' updates. Clients of the
    cluster that were absent, and those that join the run later, are in no cluster until they are
    asked next: they then join that of the lowest loss on their training data, and stay.

    The paper compares lengths with absolute thresholds, which have to be found anew for every
    model and learning rate; relative ones are the same conditions in units of the updates. Its
    bound gamma on the difference of clients' gradients is ``across = 1 - 2 * gamma^2``. The paper
    lets everyone train in every round, and has latecomers descend a tree of all splits by
    the cosines of their updates; the loss needs no old backbones.

    The state holds ``assignment`` ``[2, ids]`` int64, every client id so far, and its cluster;
    ``come`` ``[K, P]`` and ``way`` ``[K]``, the two sums; and ``first``, over the learning
    rate.

    Args:
        still: greatest distance of a cluster that may split, over its way, in [0, 1].
        moving: least length of its longest update, over the mean length in the first round.
        most: greatest number of clusters.
        across: greatest cosine of two clients that a split parts, in [-1, 1].

    Paper: Sattler, Müller and Samek, "Clustered Federated Learning: Model-Agnostic Distributed
    Multi-Task Optimization under Privacy Constraints", 2019, https://arxiv.org/abs/1910.01991
    """

    by_part = False  # its clusters are of whole backbones
    omits = "absolute thresholds, the tree of splits for latecomers"

    def __init__(
        self,
        still: UpToOne = 0.2,
        moving: NotNegative = 0.3,
        most: Count = 8,
        across: Annotated[float, Field(ge=-1, le=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.still = still
        self.moving = moving
        self.most = most
        self.across = across

    def receives(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor:
        return self.clusters(clients)

    def clusters(self, clients: Tensor) -> Tensor:
        """``[n]`` int64, the clusters of ``clients``; -1: none."""
        return known_of(clients, self.state["assignment"], -1)

    def merge(self, updates: Updates) -> Steps:
        self.state.setdefault("assignment", nobody())
        self.state.setdefault("come", torch.zeros_like(updates.backbones))
        self.state.setdefault("way", updates.backbones.new_zeros(len(updates.backbones)))
        lengths = updates.gram.diagonal().sqrt()
        self.state.setdefault("first", lengths.mean() / self.rate(updates.round))
        self.join(updates.clients, updates.received)
        of = torch.arange(len(updates.backbones))
        for cluster in range(len(updates.backbones)):
            rows = (self.clusters(updates.clients) == cluster).nonzero().squeeze(1)
            if len(rows):
                self.remember(updates, rows, lengths[rows].mean(), cluster)
                if self.may_split(lengths[rows] / self.rate(updates.round), cluster):
                    of = self.split(updates, rows, of, cluster)
        return Steps(of, updates.means_of(self.clusters(updates.clients), len(of)))

    def rate(self, round: int) -> float:
        """Return the learning rate of ``round``; outside a run, one."""
        known = circumstances(self)
        return known.config.local.rate(round) if known else 1.0

    def join(self, clients: Tensor, received: Tensor) -> None:
        """Put ``clients`` into the cluster that they chose, unless they are in one already."""
        known = self.clusters(clients)
        own = torch.where(known < 0, received, known)
        self.state["assignment"] = noted(self.state["assignment"], clients, own)

    def remember(self, updates: Updates, rows: Tensor, length: Tensor, cluster: int) -> None:
        """Add a round to how far ``cluster``, of which ``rows`` are here, has come, and its way."""
        share = torch.zeros_like(updates.weights)
        share[rows] = updates.weights[rows] / updates.weights[rows].sum().clamp(min=1e-12)
        known = circumstances(self)
        kept = 1 - known.config.strategy.fraction if known else 0.0
        come, way = self.state["come"], self.state["way"]
        come[cluster] = kept * come[cluster] + share @ updates.matrix
        way[cluster] = kept * way[cluster] + max(length, self.state["first"] * self.rate(1))

    def may_split(self, lengths: Tensor, cluster: int) -> bool:
        """Say whether ``cluster`` stands still while its clients, with ``lengths``, move."""
        come, way = self.state["come"][cluster].double().norm(), self.state["way"][cluster]
        moving = lengths.max() > self.moving * self.state["first"]
        room = len(self.state["way"]) < self.most and len(lengths) > 1
        return bool(room and moving and come < self.still * way)

    def split(self, updates: Updates, rows: Tensor, of: Tensor, cluster: int) -> Tensor:
        """Divide ``cluster``, of which ``rows`` are here, if they fall apart.

        Returns:
            ``of``, the cluster that each was at first, with the new one's after it.
        """
        gram = updates.gram[rows][:, rows]
        length = gram.diagonal().sqrt().clamp(min=1e-30)
        cosines = gram / torch.outer(length, length)
        distance = (1 - cosines).clamp(min=0).fill_diagonal_(0)
        tree = linkage(squareform(distance.cpu().numpy(), checks=False), method="single")
        parts = torch.from_numpy(fcluster(tree, 2, criterion="maxclust"))
        leaving = parts != parts[0]  # the part with the first client stays
        if not leaving.any() or cosines[leaving][:, ~leaving].max() > self.across:
            return of
        (ids, clusters), new = self.state["assignment"], len(of)
        # Who is not here is in neither part.
        others = torch.stack([ids, clusters])[:, clusters != cluster]
        own = torch.where(leaving, new, cluster)
        self.state["assignment"] = noted(others, updates.clients[rows], own)
        for name in ("come", "way"):
            self.state[name] = torch.cat([self.state[name], self.state[name][[cluster]]])
        for sums in (self.state["come"], self.state["way"]):
            sums[[cluster, new]] = 0
        return torch.cat([of, torch.tensor([cluster])])
