"""What a strategy merges: the updates of one round, stacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedjoint.model.layout import Layout

BLOCK = 1 << 20  # float64 numbers worked on at a time

_ROUGH = 1 << 13  # columns of float32 products summed before float64 takes over
_TINY = 1e-30  # below it, float32 loses the squares of small numbers
_NONE = torch.zeros(0)  # stands for what was not given


def _columns(matrix: Tensor) -> Iterator[np.ndarray]:
    """Yield blocks of columns of ``matrix`` in float64; each is overwritten by the next."""
    rows, size = matrix.shape
    width = max(1, BLOCK // max(1, rows))
    room = np.empty((rows, min(width, size)))
    for columns in matrix.split(width, dim=1):
        block = room[:, : columns.shape[1]]
        block[...] = columns.cpu().numpy()
        yield block


def inner_products(matrix: Tensor) -> Tensor:
    """Return ``[rows, rows]`` float64, the inner products of the rows of ``matrix`` ``[rows, P]``.

    In float64, products of float32 numbers are exact, and none overflows: only sums are rounded.
    The result is symmetric to the bit.
    """
    gram = np.zeros((len(matrix), len(matrix)))
    for block in _columns(matrix):
        gram += block @ block.T  # NumPy computes one half of such a product, and mirrors it
    return torch.from_numpy(gram).to(matrix.device)


def rough_inner_products(matrix: Tensor) -> Tensor:
    """Return what :func:`inner_products` does, to 1e-6 of the rows' lengths, in half the time.

    That is enough to look at. Rows whose squared lengths float32 cannot hold are computed exactly.
    """
    gram = torch.zeros(len(matrix), len(matrix), dtype=torch.float64, device=matrix.device)
    for block in matrix.split(_ROUGH, dim=1):
        gram += block @ block.T
    gram = (gram + gram.T) / 2
    square = gram.diagonal()
    held = square.isfinite().all() and not matrix[square <= _TINY].any()
    return gram if held else inner_products(matrix)


@dataclass(frozen=True)
class Deviations:
    """By how much the updates of clients' single tasks differ from the clients' updates.

    Those of one row of :class:`Updates` sum to zero, so that of its last task is not here. See
    :mod:`fedjoint.training.deviations`.

    Attributes:
        matrix: ``[k, P]`` float32.
        rows: ``[k]`` int64, to which row of the updates each belongs.
        tasks: ``[k]`` int64, to which of its tasks.
        rests: ``[k]`` int64, the last task of that row.
    """

    matrix: Tensor
    rows: Tensor
    tasks: Tensor
    rests: Tensor

    def combine(self, shares: Tensor) -> Tensor:
        """``[tasks, P]``, for every task the sum of its deviations, by shares ``[tasks, rows]``."""
        coefficients = shares.new_zeros(len(shares), len(self.rows))
        at = torch.arange(len(self.rows))
        coefficients[self.tasks, at] = shares[self.tasks, self.rows]
        coefficients[self.rests, at] = -shares[self.rests, self.rows]
        return coefficients @ self.matrix


@dataclass(frozen=True)
class Updates:
    """The updates of one round, one row per client (or per task, see :meth:`by_task`).

    An update is *new backbone minus the backbone received*: adding it is a descent step.
    Rows are sorted by client id, so a merge never depends on the order of arrival. Only what is
    learnt is here: BatchNorm's statistics, of which nothing but a mean makes sense, move by the
    weighted mean whatever the strategy.

    Attributes:
        matrix: ``[rows, P]`` float32, the stacked updates.
        weights: ``[rows]`` float32, non-negative, summing to one (by examples, client or task,
            as the strategy's ``weight_by`` says).
        examples: ``[rows]`` int64, training examples behind each row.
        clients: ``[rows]`` int64, client ids (after :meth:`by_task`, the index of the task).
        tasks: ``[rows, tasks]`` bool, which tasks each row trained.
        task_names: names of the columns of ``tasks``.
        steps: ``[rows]`` int64, local optimiser steps taken.
        backbone: ``[P]`` float32, the backbone that the clients received; where the strategy keeps
            several, their mean by the weights of the clients that have them.
        layout: names and shapes behind the P parameters.
        round: the round, from 1.
        extras: further ``[rows, ...]`` tensors that the local method sent along.
        rates: ``[rows]`` float32, the factors on the learning rate that the strategy's budget gave
            (not those of ``local.lr_scales``); None: all one.
        evaluation: split -> task -> metric, of the last evaluation; empty before the first.
        evaluated: the round that it was after.
        deviations: how the updates of a client's single tasks differ, which :meth:`by_task` adds;
            None where the strategy does not ask (``tasks_apart``), or no client has several tasks.
        backbones: ``[K, P]`` float32, all that the strategy keeps; by default the only one.
        received: ``[rows]`` int64, which of them each client received; by default the first.
    """

    matrix: Tensor
    weights: Tensor
    examples: Tensor
    clients: Tensor
    tasks: Tensor
    task_names: tuple[str, ...]
    steps: Tensor
    backbone: Tensor
    layout: Layout
    round: int
    extras: dict[str, Tensor] = field(default_factory=dict)
    rates: Tensor | None = None
    evaluation: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    evaluated: int = 0
    deviations: Deviations | None = None
    backbones: Tensor = field(default=_NONE)
    received: Tensor = field(default=_NONE)

    def __post_init__(self) -> None:
        if self.backbones is _NONE:
            object.__setattr__(self, "backbones", self.backbone[None])
        if self.received is _NONE:
            object.__setattr__(self, "received", torch.zeros_like(self.clients))

    def __len__(self) -> int:
        return self.matrix.shape[0]

    @cached_property
    def gram(self) -> Tensor:
        """``[rows, rows]`` float64, the :func:`inner_products` of the updates, computed once."""
        return inner_products(self.matrix)

    def rough_inner_products(self, rows: Tensor) -> Tensor:
        """``[n, n]`` float64, :func:`rough_inner_products` of the updates at ``rows`` ``[n]``."""
        if "gram" in self.__dict__:  # a merge has left the exact ones behind
            return self.gram[rows][:, rows]
        few = len(rows) < len(self)
        return rough_inner_products(self.matrix[rows] if few else self.matrix)

    def mean(self) -> Tensor:
        """``[P]``, the weighted mean of the rows; of a shared head, of those with its task.

        The head of a task that nobody trained stays as it is.
        """
        mean = self.weights @ self.matrix
        for task, places in self.layout.heads().items():
            own = self.weights * self.tasks[:, self.task_names.index(task)]
            share = own / own.sum().clamp(min=torch.finfo(own.dtype).tiny)
            for place in places:
                mean[place] = share @ self.matrix[:, place]
        return mean

    def means(self) -> Tensor:
        """``[K, P]``, the :meth:`mean` of those that received each backbone; zero of nobody."""
        return self.means_of(self.received, len(self.backbones))

    def means_of(self, group: Tensor, count: int) -> Tensor:
        """``[count, P]``, the :meth:`mean` of the rows of each group; zero where there are none.

        Args:
            group: ``[rows]`` int64, from 0 and below ``count``.
            count: of groups.
        """
        share = torch.nn.functional.one_hot(group, count).T.to(self.weights) * self.weights
        means = (share / share.sum(1).clamp(min=1e-12)[:, None]) @ self.matrix
        for task, places in self.layout.heads().items():
            own = share * self.tasks[:, self.task_names.index(task)]
            own = own / own.sum(1).clamp(min=torch.finfo(own.dtype).tiny)[:, None]
            for place in places:
                means[:, place] = own @ self.matrix[:, place]
        return means

    def by_task(self) -> Updates:
        """Return one row per task: the weighted mean of the updates that trained the task.

        Where there are :attr:`deviations`, a client's own update of the task stands in place of its
        whole update. They sum to zero over its tasks, so what follows holds with and without them.

        The weight of a client with several tasks is split evenly over them, in the means and in
        the weights of the rows, which are what each task's clients have in all: so the weighted
        mean of the rows is that of the clients. Tasks that nobody trained this round have no row.
        """
        share = self.tasks.T * (self.weights / self.tasks.sum(1).clamp(min=1))
        total = share.sum(1)
        present = (total > 0).nonzero().squeeze(1)
        share = share / torch.where(total > 0, total, 1)[:, None]
        mean, total = share[present] @ self.matrix, total[present]
        if self.deviations is not None:
            mean += self.deviations.combine(share)[present]
        member = self.tasks.T[present].to(torch.int64)
        return replace(
            self,
            matrix=mean,
            weights=total / total.sum(),
            examples=member @ self.examples,
            clients=present,
            tasks=torch.eye(len(self.task_names), dtype=torch.bool)[present],
            steps=(member @ self.steps) // member.sum(1),
            extras={},
            rates=None,
            deviations=None,
            received=_NONE,
        )

    def combine(self, coefficients: Tensor) -> Tensor:
        """``[P]`` float32, the combination of the rows with ``coefficients`` ``[rows]``.

        Float64 coefficients are summed in float64: where large terms cancel out, or a factor
        is too small for float32, what remains is right. It takes a few times as long.
        """
        if coefficients.dtype != torch.float64:
            return coefficients.to(self.matrix) @ self.matrix
        c = coefficients.cpu().numpy()
        parts = [torch.from_numpy(c @ block).float() for block in _columns(self.matrix)]
        return torch.cat(parts).to(self.matrix.device)
