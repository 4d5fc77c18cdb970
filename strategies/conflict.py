"""Base of the rules that resolve conflicts between updates by weighing them."""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.strategy import JointStrategy
from fedjoint.updates import Updates
from strategies.options import number, one_of


class ConflictAware(JointStrategy):
    """Merge into ``step = server_lr * sum_i c_i * update_i``, with c from inner products alone.

    A subclass implements :meth:`coefficients`. The P parameters are touched twice, for the Gram
    matrix and for the sum, whatever the rule does in between. All subclasses keep the length
    of the updates, so ``server_lr=1`` means what it means for FedAvg.

    Args:
        level: ``client`` weighs the updates of clients, ``task`` the mean updates of tasks
            (:meth:`fedjoint.updates.Updates.by_task`); then clients need not be told apart.
        server_lr: factor on the step, above zero.

    Raises:
        UserError: an option is out of range.
    """

    def __init__(self, level: str = "client", server_lr: float = 1.0) -> None:
        super().__init__()
        self.level = one_of("level", level, ("client", "task"))
        self.server_lr = number("server_lr", server_lr, above=0)
        self.per_client = level == "client"

    def merge(self, updates: Updates) -> Tensor:
        rows = updates.by_task() if self.level == "task" else updates
        gram, weights = rows.gram.cpu(), rows.weights.cpu().double()
        moved = gram.diagonal() > 0
        result = torch.zeros_like(weights)
        if moved.any():
            # An update of length zero says nothing about direction: as in the mean, it only
            # shortens the step. Scaling makes the rules' tolerances relative.
            share = weights[moved].sum()
            gram = gram[moved][:, moved]
            gram = gram / gram.diagonal().mean()
            result[moved] = share * self.solve(gram, weights[moved] / share, rows, moved)
        return self.server_lr * rows.combine(result)

    def solve(self, gram: Tensor, weights: Tensor, rows: Updates, moved: Tensor) -> Tensor:
        """Return :meth:`coefficients`; a rule that needs ids or the round overrides this.

        Args:
            gram: as for :meth:`coefficients`.
            weights: as for :meth:`coefficients`.
            rows: all updates of the round, by client or by task.
            moved: ``[len(rows)]`` bool, the rows behind ``gram``.
        """
        return self.coefficients(gram, weights)

    def coefficients(self, gram: Tensor, weights: Tensor) -> Tensor:
        """Return the coefficients c of the updates, ``[rows]`` float64.

        Args:
            gram: ``[rows, rows]`` float64, the inner products of the updates, all of them
                longer than zero, with a mean square length of one.
            weights: ``[rows]`` float64, summing to one.
        """
        raise NotImplementedError
