"""Fixed weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedjoint.errors import UserError, choose
from fedjoint.model.tasks import Task
from fedjoint.options import NotNegative
from fedjoint.training.balance import Balance, Tensors


class Fixed(Balance):
    """``sum_t w_t * loss_t`` with given weights.

    Args:
        tasks: the client's.
        weights: task -> weight; one where it names none.
    """

    def __init__(
        self, tasks: Sequence[Task], weights: dict[str, NotNegative] | None = None
    ) -> None:
        super().__init__(tasks)
        self.given = weights or {}

    def check_tasks(self, known: Sequence[str]) -> None:
        for name in self.given:
            if name not in known:
                raise choose("task in balance.options.weights", name, known)
        if not any(self.given.get(name, 1.0) for name in known):
            raise UserError(
                "balance.options.weights are all 0, and nothing would be trained: give a task a "
                "weight above 0"
            )

    def weights(self, state: Tensors) -> Tensor:
        return torch.tensor([self.given.get(t.name, 1.0) for t in self.tasks])
