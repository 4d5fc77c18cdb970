"""FedHCA2: the rule by which it merges encoders."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.options import BelowOne, Positive

from ._conflict import Length, Level
from .cagrad import CAGrad


class FedHCA2(CAGrad):
    """The conflict-averse merge of encoders in FedHCA2: CAGrad around the plain mean, rescaled.

    ``step = CAGrad(equal weights) / (1 + radius^2)``. Kept of the paper: this common step. Left
    out, since they give every client a backbone of its own or merge heads, which never travel
    here: the learnt per-client weights of the step, the mean over clients of the same tasks,
    and the cross attention between decoders.

    Args:
        level: ``client``, as in the paper, ``task`` or ``task_mean``.
        server_lr: factor on the step.
        length: ``own`` or ``mean``, see :class:`fedjoint.strategies._conflict.ConflictAware`.
        radius: the paper's c, in [0, 1).

    Paper: Lu et al., "FedHCA2: Towards Hetero-Client Federated Multi-Task Learning", CVPR 2024,
    https://arxiv.org/abs/2311.13250
    """

    omits = "weights learnt per client, cross attention of decoders, means of like clients"

    def __init__(
        self,
        level: Level = "client",
        server_lr: Positive = 1.0,
        length: Length = "own",
        radius: BelowOne = 0.4,
    ) -> None:
        super().__init__(level, server_lr, length, radius)

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        equal = torch.full_like(weights, 1 / len(weights))
        return super().coefficients(gram, equal) / (1 + self.radius**2)
