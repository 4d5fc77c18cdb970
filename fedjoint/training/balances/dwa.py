"""DWA: weights by how fast losses fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedjoint.model.tasks import Task
from fedjoint.training.balance import Balance, Tensors

Temperature = Annotated[float, Field(ge=1e-3, le=1e6)]


class DWA(Balance):
    """Dynamic weight averaging: tasks whose loss falls slowest weigh most.

    ``w = tasks * softmax(ratio / temperature)``, the ratio of a task's mean losses of the last two
    rounds that had a label of it; 1 until there are two.

    Args:
        tasks: the client's.
        temperature: the higher, the more alike the weights.

    Paper: Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
    https://arxiv.org/abs/1803.10704
    """

    def __init__(self, tasks: Sequence[Task], temperature: Temperature = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature

    def private(self) -> Tensors:
        return {"balance.history": torch.full((2, len(self.tasks)), float("nan"))}

    def weights(self, state: Tensors) -> Tensor:
        before, last = state["balance.history"].unbind(0)
        ratio = last / before.clamp(min=1e-12)
        ratio = torch.where(ratio.isnan(), torch.ones_like(ratio), ratio)
        return len(self.tasks) * torch.softmax(ratio / self.temperature, 0)

    def after_round(self, losses: Tensor, state: Tensors) -> None:
        history = state["balance.history"]
        moved = torch.stack([history[:, 1], losses], 1)
        history.copy_(torch.where(losses.isnan()[:, None], history, moved))
