"""FedMerge: every client receives a mixture of a few models, whose shares are learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.options import Count, NotNegative, Positive, Whole
from fedjoint.server.steps import Steps
from fedjoint.server.updates import Updates

from ._of_clients import OfClients
from ._seeding import generator


class FedMerge(OfClients):
    """Learn a few models ``m_j`` and, for each client, the shares at which they are mixed.

    Client i receives ``b_i = sum_j s_ij m_j``, with ``s_i = softmax(l_i)``. Its update ``u_i``
    stands for the negative gradient of its loss, weighed by ``p_i``; by the chain rule

    - ``m_j`` moves by the mean of the ``u_i``, weighed by ``p_i * s_ij``;
    - ``l_ij`` rises with ``p_i * s_ij * <m_j - b_i, u_i>``. All are scaled so that the largest
      change is ``mix_rate``, as in the authors' code: it has no unit, and holds for every model.

    All shares are equal at first, and so they are in backbone 0, which clients receive that have
    not trained yet. The first models lie around the configured backbone, their mean.

    The state holds ``models`` ``[M, P]`` and ``logits`` ``[K, M]``, in the order of the backbones;
    and see :class:`fedjoint.strategies._of_clients.OfClients`.

    Args:
        models: M.
        mix_rate: the largest change of an ``l_ij`` in a round; for hundreds of rounds, less.
        server_lr: factor on the steps of the models.
        spread: standard deviation of the Gaussian noise that sets the first models apart, in units
            of the root mean square parameter.
        seed: of the noise, with the run's own.

    Paper: Chen et al., "FedMerge: Federated Personalization via Model Merging", 2025,
    https://arxiv.org/abs/2504.06768
    """

    omits = (
        "first models drawn independently, steps of models as sums, shares by the last layers "
        "alone, the clients' pull"
    )

    def __init__(
        self,
        models: Count = 5,
        mix_rate: NotNegative = 0.5,
        server_lr: Positive = 1.0,
        spread: NotNegative = 0.1,
        seed: Whole = 0,
    ) -> None:
        super().__init__()
        self.models = models
        self.mix_rate = mix_rate
        self.server_lr = server_lr
        self.spread = spread
        self.seed = seed

    def merge(self, updates: Updates) -> Steps:
        models = self.state.get("models")
        if models is None:
            models = self.first_models(updates.backbones[0])
        of, own = self.join(updates)
        logits = models.new_zeros(len(of), len(models))
        known = self.state.get("logits", logits[:1])
        logits[: len(known)] = known
        shares = logits[own].softmax(1)
        pull = updates.weights[:, None] * shares
        logits[own] += self.turn(updates, models, shares)
        moved = (pull / pull.sum(0).clamp(min=torch.finfo(pull.dtype).tiny)).T @ updates.matrix
        self.state |= {"models": models + self.server_lr * moved, "logits": logits}
        shares = logits.softmax(1)
        self.report["models per client"] = float(torch.special.entr(shares).sum(1).exp().mean())
        return Steps(of, shares @ self.state["models"] - updates.backbones[of])

    def first_models(self, backbone: Tensor) -> Tensor:
        """``[M, P]`` models around ``backbone`` ``[P]``."""
        drawn = generator(self, self.seed).standard_normal((self.models, len(backbone)))
        noise = torch.from_numpy(drawn).to(backbone)
        return backbone + self.spread * backbone.square().mean().sqrt() * (noise - noise.mean(0))

    def turn(self, updates: Updates, models: Tensor, shares: Tensor) -> Tensor:
        """``[rows, M]``, by how much the logits rise.

        Args:
            updates: of the clients.
            models: ``[M, P]``.
            shares: ``[rows, M]``, of the models in what the clients received.
        """
        along = updates.matrix @ (models - models.mean(0)).T  # what is common moves no share
        rise = shares * (along - (shares * along).sum(1, keepdim=True))
        rise = updates.weights[:, None] * rise
        return self.mix_rate * rise / rise.abs().max().clamp(min=torch.finfo(rise.dtype).tiny)
