"""What a node says of each client that it was asked to train, a row for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedjoint._util.wording import plain
from fedjoint.errors import UserError
from fedjoint.protocol.checks import MOST, Line, Number, counts, shaped
from fedjoint.protocol.requests import Asked

_WORK = 1000  # gradients a step that a local method may take, at most


@dataclass(frozen=True)
class ClientFailure:
    """A client that did not do what it was asked, and why."""

    client: Number
    reason: Line


def of_asked(failed: Sequence[ClientFailure], asked: Asked) -> None:
    """Make sure that failures are of clients that were asked, one each at most.

    Raises:
        UserError: they are not.
    """
    named = [failure.client for failure in failed]
    if len(set(named)) < len(named) or not np.isin(named, asked.clients).all():
        raise UserError("its failures are of other clients than were asked for")


@dataclass(frozen=True)
class ClientReports:
    """How the training of ``n`` clients went.

    Attributes:
        clients: ``[n]`` int64 ids; what is not of a client that trained means nothing.
        good: ``[n]`` bool, which of them trained.
        examples: ``[n]`` int64 training examples.
        steps: ``[n]`` int64 optimiser steps on the backbone.
        work: ``[n]`` int64 gradients computed.
        losses: ``[n, tasks]`` float32, NaN where a client lacks the task.
    """

    clients: np.ndarray
    good: np.ndarray
    examples: np.ndarray
    steps: np.ndarray
    work: np.ndarray
    losses: np.ndarray

    @classmethod
    def empty(cls, clients: int, tasks: int) -> ClientReports:
        """Return reports of clients none of which trained, to :meth:`put` others into."""
        numbers = (np.zeros(clients, np.int64) for _ in range(4))
        ids, examples, steps, work = numbers
        losses = np.full((clients, tasks), np.nan, np.float32)
        return cls(ids, np.zeros(clients, bool), examples, steps, work, losses)

    def put(self, rows: np.ndarray, others: ClientReports) -> None:
        """Write ``others`` to ``rows``."""
        for name, column in vars(self).items():
            column[rows] = getattr(others, name)

    @classmethod
    def read(
        cls,
        arrays: Mapping[str, np.ndarray],
        asked: Asked,
        named: Sequence[str],
        tasks: Sequence[str],
    ) -> ClientReports:
        """Check what a node sends.

        Args:
            arrays: the reports' columns by name, losses in the order of ``named``.
            asked: what the node was asked.
            named: its tasks.
            tasks: all tasks.

        Raises:
            UserError: a column is missing or wrong, or the reports are about others.
        """
        count, places = len(asked.clients), columns(named, tasks)
        good = shaped(arrays, "good", (count,), "b")
        clients = shaped(arrays, "clients", (count,), "iu")
        if not np.array_equal(clients[good], asked.clients[good]):
            raise UserError("the reply is about other clients than were asked for")
        losses = np.full((count, len(tasks)), np.nan, np.float32)
        losses[:, places] = shaped(arrays, "losses", (count, len(named)), "f")
        return cls(
            asked.clients,
            good,
            counts(arrays, "examples", count, _bound(asked.declared)),
            counts(arrays, "steps", count, _bound(asked.budget)),
            counts(arrays, "work", count, _WORK * (1 + _bound(asked.budget))),
            losses,
        )


def _bound(most: np.ndarray | None) -> np.ndarray | int:
    return MOST if most is None else most


def columns(named: Sequence[str], tasks: Sequence[str]) -> list[int]:
    """Return the places of the tasks ``named`` among ``tasks``.

    Raises:
        UserError: one of them is not there, or is named twice.
    """
    unknown = [name for name in named if name not in tasks]
    if unknown:
        raise UserError(f"the reply is about tasks that nobody has: {plain(unknown)}")
    if len(set(named)) < len(named):
        raise UserError(f"the reply names a task twice: {plain(named)}")
    return [tasks.index(name) for name in named]
