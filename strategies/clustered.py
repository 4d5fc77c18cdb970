"""IFCA and CFL: one backbone per cluster of clients."""

from __future__ import annotations

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates
from strategies.options import number, whole
from strategies.seeding import generator


class Clustered(JointStrategy):
    """What both share: a state ``backbones`` ``[K, P]``, and how the clusters move.

    Clients train the backbone of their cluster, and an update is *new backbone minus the
    cluster's*. The global backbone, which clients without a cluster see, moves to the weighted
    mean of the cluster backbones, by the weight of their clients in this round.
    """

    method = "clustered"

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


class IFCA(Clustered):
    """Iterative federated clustering: each client joins the cluster whose loss it finds lowest.

    Clients receive all ``backbones`` ``[K, P]``, train the best one and send its number as
    ``extras["cluster"]`` ``[rows]`` int64.

    Args:
        clusters: K.
        spread: standard deviation of the Gaussian noise that sets the first backbones apart, in
            units of the root mean square parameter; the first one gets none.
        seed: of the noise, with the run's own.

    Raises:
        UserError: an option is out of range.

    Paper: Ghosh et al., "An Efficient Framework for Clustered Federated Learning", NeurIPS
    2020, https://arxiv.org/abs/2006.04088
    """

    def __init__(self, clusters: int = 2, spread: float = 0.1, seed: int = 0) -> None:
        super().__init__()
        self.clusters = whole("clusters", clusters, least=1)
        self.spread = number("spread", spread, least=0)
        self.seed = whole("seed", seed, least=0)

    def broadcast(self, backbone: Tensor) -> dict[str, Tensor]:
        """Return the ``backbones`` ``[K, P]`` for clients to choose from."""
        if "backbones" not in self.state:
            noise = torch.zeros(self.clusters, len(backbone)).to(backbone)
            for cluster in range(1, self.clusters):
                drawn = generator(self, self.seed, cluster).standard_normal(len(backbone))
                noise[cluster] = torch.from_numpy(drawn)
            size = backbone.square().mean().sqrt()
            self.state["backbones"] = backbone + self.spread * size * noise
        return {"backbones": self.state["backbones"]}

    def merge(self, updates: Updates) -> Tensor:
        self.broadcast(updates.backbone)
        return self.move(updates, updates.extras["cluster"].long())


class CFL(Clustered):
    """Clustered federated learning: a cluster that stands still while its clients move is split.

    A cluster with weighted mean update m splits when ``|m| < still * mean_i |update_i|``, the
    mean over its clients in this round, and ``max_i |update_i| > moving * first``, where first
    is the mean length of all updates in the run's first round. The two parts are those with the
    least similar most similar pair across them, by cosine: what single linkage leaves when it
    stops at two. Both start from the old backbone and move by their own clients' updates.

    The paper compares both lengths with absolute thresholds, which have to be found anew for
    every model and learning rate. Relative ones are the same conditions in units of the updates:
    the first asks whether the clients cancel out, and the second keeps apart a cluster whose
    clients have all arrived, and whose updates are noise that cancels out, too. Left out is the
    paper's bound on the cosines across the split.

    The state holds ``backbones`` ``[K, P]``, ``assignment`` ``[ids]`` int64, the cluster of
    every client id so far, and ``first``, a number; clients beyond the assignment, or not seen
    yet, are in cluster 0.

    Args:
        still: greatest length of the mean update of a cluster that may split, over the mean
            length of its updates, in [0, 1].
        moving: least length of its longest update, over the mean length in the first round.
        most: greatest number of clusters.

    Raises:
        UserError: an option is out of range.

    Paper: Sattler, Müller and Samek, "Clustered Federated Learning: Model-Agnostic Distributed
    Multi-Task Optimization under Privacy Constraints", 2019, https://arxiv.org/abs/1910.01991
    """

    def __init__(self, still: float = 0.2, moving: float = 0.3, most: int = 8) -> None:
        super().__init__()
        self.still = number("still", still, least=0, most=1)
        self.moving = number("moving", moving, least=0)
        self.most = whole("most", most, least=1)

    def broadcast(self, backbone: Tensor) -> dict[str, Tensor]:
        """Return the ``backbones`` ``[K, P]`` and the ``assignment`` ``[ids]`` of clients."""
        self.state.setdefault("backbones", backbone[None].clone())
        self.state.setdefault("assignment", torch.zeros(0, dtype=torch.int64))
        return {name: self.state[name] for name in ("backbones", "assignment")}

    def merge(self, updates: Updates) -> Tensor:
        self.broadcast(updates.backbone)
        self.state.setdefault("first", updates.gram.diagonal().sqrt().mean())
        self.make_room(int(updates.clients.max()) + 1)
        for cluster in range(len(self.state["backbones"])):
            rows = (self.state["assignment"][updates.clients] == cluster).nonzero().squeeze(1)
            if len(self.state["backbones"]) < self.most and self.must_split(updates, rows):
                self.split(updates, rows)
        return self.move(updates, self.state["assignment"][updates.clients])

    def make_room(self, ids: int) -> None:
        """Lengthen the assignment to ``ids`` entries, new ones in cluster 0."""
        old = self.state["assignment"]
        self.state["assignment"] = torch.cat([old, old.new_zeros(max(0, ids - len(old)))])

    def must_split(self, updates: Updates, rows: Tensor) -> bool:
        """Say whether the cluster of ``rows`` stands still while its clients move."""
        if len(rows) < 2:
            return False
        gram = updates.gram[rows][:, rows]
        share = updates.weights[rows].double()
        share = share / share.sum().clamp(min=1e-12)
        mean, length = (share @ gram @ share).clamp(min=0).sqrt(), gram.diagonal().sqrt()
        moving = length.max() > self.moving * self.state["first"]
        return bool(moving and mean < self.still * length.mean())

    def split(self, updates: Updates, rows: Tensor) -> None:
        """Put one part of ``rows`` into a new cluster with the old one's backbone."""
        gram = updates.gram[rows][:, rows]
        length = gram.diagonal().sqrt().clamp(min=1e-30)
        distance = (1 - gram / torch.outer(length, length)).clamp(min=0).fill_diagonal_(0)
        tree = linkage(squareform(distance.cpu().numpy(), checks=False), method="single")
        parts = torch.from_numpy(fcluster(tree, 2, criterion="maxclust"))
        clients = updates.clients[rows]
        leaving = clients[parts != parts[0]]  # the part with the first client stays
        if len(leaving):
            backbones, assignment = self.state["backbones"], self.state["assignment"]
            old = backbones[assignment[clients[0]]]
            self.state["assignment"] = assignment.index_fill(0, leaving, len(backbones))
            self.state["backbones"] = torch.cat([backbones, old[None]])
