"""Base of the rules that resolve conflicts between updates by weighing them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedjoint.options import Positive
from fedjoint.server.strategy import JointStrategy
from fedjoint.server.updates import Updates

from ._cosines import ROUNDING

Level = Literal["task", "task_mean", "client"]
Length = Literal["own", "mean"]


class ConflictAware(JointStrategy):
    """Merge into ``step = server_lr * sum_i c_i * update_i``, with c from inner products alone.

    A subclass implements :meth:`coefficients`. The P parameters are touched twice, for the Gram
    matrix and for the sum, whatever the rule does in between.

    Rules differ in direction and in length. MGDA's step, the shortest combination, all but
    vanishes among many clients, and Aligned-MTL's is as short as the smallest singular value.
    The papers train with Adam, to which a constant factor is nothing, but here the step is added
    as it is: in a few rounds, a comparison of rules is one of lengths. ``length="mean"`` gives
    every step the length of the weighted mean, and leaves the direction to compare; a step of
    zero stays zero. It is not the default, since a rule's length is also how it stops: where the
    tasks oppose each other, a step of little but noise would be made as long as any.

    Args:
        level: ``task`` weighs the mean updates of tasks (``Updates.by_task``), which are what
            conflicts in multi-task learning; clients then need not be told apart, and with one
            task nothing is left to weigh. A client with T tasks tells their updates apart by
            their gradients, and sends T times as much: see docs/conflict.md. ``task_mean`` does
            without: such a client is in the rows of its tasks with its one update, and tasks of
            the very same clients count as one. ``client`` weighs the updates of clients.
        server_lr: factor on the step, above zero.
        length: ``own``: as the rule leaves it; ``mean``: ``|sum_i weights_i * update_i|``.
    """

    def __init__(
        self,
        level: Level = "task",
        server_lr: Positive = 1.0,
        length: Length = "own",
    ) -> None:
        super().__init__()
        self.level = level
        self.server_lr = server_lr
        self.length = length
        self.per_client, self.tasks_apart = level == "client", level == "task"

    def merge(self, updates: Updates) -> Tensor:
        rows = updates if self.level == "client" else updates.by_task()
        gram, weights = rows.gram.cpu(), rows.weights.cpu().double()
        moved = gram.diagonal() > 0
        result = torch.zeros_like(weights)
        if moved.any():
            # An update of length zero says nothing about direction: as in the mean, it only
            # shortens the step. Scaling makes the rules' tolerances relative.
            share = weights[moved].sum()
            gram = gram[moved][:, moved]
            gram, weights = gram / gram.diagonal().mean(), weights[moved] / share
            c = self.solve(gram, weights, rows, moved)
            if self.length == "mean":
                c = c * _ratio(weights, c, gram)
            result[moved] = share * c
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


def _ratio(first: Tensor, second: Tensor, gram: Tensor) -> Tensor:
    """Return the length of one combination of updates over that of another, 0 if that is 0."""
    square, other = first @ gram @ first, second @ gram @ second
    # What cancels out leaves the rounding errors of the updates, and no direction.
    noise = (ROUNDING * second.abs() @ gram.diagonal().sqrt()).square()
    return (square.clamp(min=0) / other).sqrt() if other > noise else torch.zeros_like(other)
