"""IFCA: every client joins the cluster whose loss it finds lowest."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.options import Count, NotNegative, Whole
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._seeding import generator


class IFCA(JointStrategy):
    """Iterative federated clustering: each client joins the cluster whose loss it finds lowest.

    Clients receive all K backbones and choose anew in every round that they train or are evaluated
    in: to be absent, or to join late, makes no difference. Each backbone moves by the weighted mean
    of the updates of those who chose it.

    Args:
        clusters: K.
        spread: standard deviation of the Gaussian noise that sets the first backbones apart, in
            units of the root mean square parameter; the first one gets none.
        seed: of the noise, with the run's own.

    Paper: Ghosh et al., "An Efficient Framework for Clustered Federated Learning", NeurIPS
    2020, https://arxiv.org/abs/2006.04088
    """

    omits = "first backbones drawn independently, restarts"

    def __init__(self, clusters: Count = 2, spread: NotNegative = 0.1, seed: Whole = 0) -> None:
        super().__init__()
        self.clusters = clusters
        self.spread = spread
        self.seed = seed

    def first_backbones(self, backbone: Tensor) -> Tensor:
        noise = torch.zeros(self.clusters, len(backbone)).to(backbone)
        for cluster in range(1, self.clusters):
            drawn = generator(self, self.seed, cluster).standard_normal(len(backbone))
            noise[cluster] = torch.from_numpy(drawn)
        return backbone + self.spread * backbone.square().mean().sqrt() * noise

    def merge(self, updates: Updates) -> Tensor:
        return updates.means()
