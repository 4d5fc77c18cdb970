"""What a strategy may know of the clients when it chooses who trains, how long and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedjoint.errors import UserError
from fedjoint.runs.record import Metrics


@dataclass(frozen=True)
class Candidates:
    """Clients with training examples, ascending by id.

    Attributes:
        ids: ``[n]`` int64.
        sizes: ``[n]`` int64, training examples.
        tasks: ``[n, tasks]`` bool, which tasks they have.
        task_names: names of the columns of ``tasks``.
        losses: ``[n]`` float32, mean training loss in the last round of theirs that was merged;
            NaN for who has none.
        trained: ``[n]`` int64, that round; 0: none.
        count: how many train in a round by ``strategy.fraction``.
        drawn: ``[count]`` int64, ids that a uniform draw gives: who trains where a strategy does
            not choose.
        evaluation: split -> task -> metric, of the last evaluation; empty before the first.
        rng: random numbers of this round, the same in every run of the same seed.
    """

    ids: np.ndarray
    sizes: np.ndarray
    tasks: np.ndarray
    task_names: tuple[str, ...]
    losses: np.ndarray
    trained: np.ndarray
    count: int
    drawn: np.ndarray
    evaluation: Mapping[str, Metrics]
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, ids: np.ndarray) -> Candidates:
        """Return those of ``ids`` ``[k]`` int64, ascending, each of them here."""
        at = np.searchsorted(self.ids, ids)
        columns = ("ids", "sizes", "tasks", "losses", "trained")
        return replace(self, **{name: getattr(self, name)[at] for name in columns})


@dataclass(frozen=True)
class Budget:
    """What the clients of a round are given, in the order in which a strategy was shown them.

    Attributes:
        steps: ``[n]`` int64, optimiser steps in place of ``local.epochs`` or ``local.steps``;
            None: as configured. At least one each.
        rates: ``[n]`` float, factors on the learning rate, beside ``local.lr_scales``; None: one.
    """

    steps: Any = None
    rates: Any = None


def checked_selection(name: str, chosen: Any, candidates: Candidates) -> np.ndarray:
    """Return ``[k]`` int64 ids of the selected clients, ascending.

    Args:
        name: the strategy's, for the error.
        chosen: what its ``select`` returned.
        candidates: what it could choose from.

    Raises:
        UserError: these are no ids of candidates, none, or one twice.
    """
    ids = _numbers(f"{name}.select", chosen, None, "iu")
    strangers = ids[~np.isin(ids, candidates.ids)]
    if len(strangers):
        raise UserError(
            f"{name}.select chose client {strangers[0]}, which cannot train: return ids of "
            "clients.ids"
        )
    if not len(ids) or len(np.unique(ids)) < len(ids):
        raise UserError(f"{name}.select chose {'a client twice' if len(ids) else 'nobody'}")
    return np.sort(ids.astype(np.int64))


def checked_budget(name: str, budget: Any, count: int) -> Budget:
    """Return ``budget`` in arrays: ``steps`` int64, ``rates`` float32.

    Args:
        name: the strategy's, for the error.
        budget: what its ``budget`` returned.
        count: how many clients train.

    Raises:
        UserError: it is no budget of that many clients, or a number in it is out of range.
    """
    if budget is None:
        return Budget()
    if not isinstance(budget, Budget):
        raise UserError(f"{name}.budget returned {type(budget).__name__}, not a fedjoint.Budget")
    steps = rates = None
    if budget.steps is not None:
        steps = _numbers(f"{name}.budget: steps", budget.steps, count, "iu").astype(np.int64)
        if steps.min(initial=1) < 1:
            raise UserError(f"{name}.budget: steps has {steps.min()}; give at least 1")
    if budget.rates is not None:
        rates = _numbers(f"{name}.budget: rates", budget.rates, count, "iuf").astype(np.float32)
        if not (np.isfinite(rates) & (rates > 0)).all():
            raise UserError(f"{name}.budget: rates has {rates.min()}; give factors above 0")
    return Budget(steps, rates)


def _numbers(what: str, values: Any, count: int | None, kinds: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if not array.size and not count:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in kinds or count not in (None, len(array)):
        wanted = "whole numbers" if "f" not in kinds else "numbers"
        many = "" if count is None else f"{count} "
        raise UserError(f"{what} gave {array.dtype} {array.shape}; give {many}{wanted} in a row")
    return array
