"""The clients of a request, divided into the jobs that they form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.stretches import stretches
from fedjoint.errors import ANYTHING, UserError, one_line
from fedjoint.node.private import PrivateState
from fedjoint.protocol.reports import ClientFailure
from fedjoint.protocol.requests import Asked
from fedjoint.training.cohort import Cohort
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod
from fedjoint.training.receiving import take_backbones
from fedjoint.training.trainer import Trainer

log = logging.getLogger("fedjoint.node.node")

T = TypeVar("T")


@dataclass(frozen=True)
class Start:
    """What all clients of a request start from.

    Attributes:
        round: the round.
        received: ``[P + B]`` the global backbone, or ``[k, P + B]`` those that clients need.
        broadcast: what else the strategy sent, by name.
        method: the local method.
    """

    round: int
    received: Tensor
    broadcast: Mapping[str, Tensor]
    method: LocalMethod


@dataclass(frozen=True)
class Members:
    """Clients that form a job.

    Attributes:
        rows: ``[c]`` int64, their places among the clients of the request.
        blocks: ``[c]`` int64, the places of their blocks in the request, ascending.
        ids: ``[c]`` int64.
        rounds: ``[c]`` int64, the round after which a client's private state counts; 0: none.
        steps: ``[c]`` int64, optimiser steps of each; None: as configured.
        rates: ``[c]`` float32, factors on the learning rate of each; None: one.
        received: ``[c]`` int64, which of several backbones is each client's; -1: that of the
            lowest loss. None: there is only one.
    """

    rows: np.ndarray
    blocks: np.ndarray
    ids: np.ndarray
    rounds: np.ndarray
    steps: np.ndarray | None = None
    rates: np.ndarray | None = None
    received: np.ndarray | None = None

    def at(self, at: slice | np.ndarray) -> Members:
        """Return those at some positions."""
        some = (own if own is None else own[at] for own in (self.steps, self.rates, self.received))
        return Members(self.rows[at], self.blocks[at], self.ids[at], self.rounds[at], *some)

    def by_block(self) -> Iterator[tuple[int, slice]]:
        """Yield each block's place in the request, and where its clients are."""
        for at in stretches(self.blocks):
            yield int(self.blocks[at.start]), at


def openly(error: BaseException) -> str:
    """Return all that an error says, in one line."""
    own = isinstance(error, UserError)
    return one_line(error if own else f"{type(error).__name__}: {error}")


class Jobs:
    """Makes the jobs of a node.

    Args:
        trainer: trains.
        state: keeps what clients keep to themselves.
        places: id -> position in the data of the clients that live here; None: the id itself.
        tell: what the server hears of an error.
    """

    def __init__(
        self,
        trainer: Trainer,
        state: PrivateState,
        places: Mapping[int, int] | None,
        tell: Callable[[BaseException], str] = openly,
    ) -> None:
        self._tell = tell
        self.trainer, self.state, self._places = trainer, state, places
        self._logged: set[str] = set()  # one traceback for each reason

    def tasks(self, members: Members) -> np.ndarray:
        """Return ``[c, tasks]`` bool, which of all tasks clients have."""
        has: np.ndarray = self.trainer.problem.data.tasks[self._positions(members.ids)]
        return has

    def divide(self, asked: Asked, rounds: np.ndarray) -> Iterator[Members]:
        """Yield the clients of each job, bundle by bundle.

        Args:
            asked: the share of this node.
            rounds: ``[n]`` int64, the round after which a client's private state counts.

        Raises:
            UserError: a client does not live here.
        """
        mixed = self.trainer.mixes and asked.received is None
        rows, budget = np.arange(len(asked.clients)), (asked.steps, asked.rates)
        blocks = np.repeat(np.arange(len(asked.blocks)), asked.sizes)
        everyone = Members(rows, blocks, asked.clients, rounds, *budget, asked.received)
        together = blocks if asked.bundles is None else asked.bundles[blocks]
        for at in stretches(together):
            members = everyone.at(at)
            for part in self.trainer.chunks(self._positions(members.ids), mixed=mixed):
                yield members.at(part)

    def job(self, members: Members, start: Start, *, train: bool = False) -> Job:
        """Return the job of ``members``; to ``train``, with backbones to be changed in place."""
        trainer, count = self.trainer, len(members.ids)
        cohort = trainer.cohort(self._positions(members.ids), members.ids)
        several = start.received if members.received is not None else start.received[None]
        first = several[0]
        private = self._private(members, cohort, start.method, first)
        shared = first.expand(count, -1)
        shared = shared.clone() if train else shared
        job = trainer.job(
            cohort, start.round, first, start.broadcast, shared, private, members.rates
        )
        if members.steps is not None:
            job.budget = {**job.budget, "epochs": None, "steps": members.steps}
        if members.received is not None:
            fresh = partial(trainer.fresh, cohort.tasks, start.method)
            take_backbones(job, several, members.received, members.rounds == 0, fresh)
        return job

    def _private(
        self, members: Members, cohort: Cohort, method: LocalMethod, received: Tensor
    ) -> dict[str, Tensor]:
        """Return name -> ``[c, ...]``, what clients have for themselves; fresh what they lack."""
        fresh, parts = self.trainer.fresh, list(members.by_block())
        taken = []
        for _, at in parts:
            own, tasks = members.at(at), cohort.tasks_of(at.start)
            make = partial(fresh, tasks, method, received)
            taken.append(self.state.take(own.ids, own.rounds, make))
        if len(parts) == 1:
            return taken[0]
        whole = {
            name: torch.stack([tensor] * len(cohort))
            for name, tensor in fresh(cohort.tasks, method, received).items()
        }
        for (_, at), state in zip(parts, taken, strict=True):
            for name, values in state.items():
                whole[name][at] = values
        return whole

    def keep(self, job: Job, members: Members, round: int, good: np.ndarray) -> None:
        """Keep what the clients that are ``good`` have for themselves after ``round``.

        Args:
            job: theirs.
            members: the clients.
            round: the round.
            good: ``[c]`` bool.
        """
        for _, at in members.by_block():
            own, rows = members.at(at), np.flatnonzero(good[at])
            if not len(rows):
                continue
            state = {n: job.private[n][at] for n in job.cohort.names_of(at.start, job.private)}
            if len(rows) < len(members.ids):  # a copy: a view would keep the others' in memory
                there = torch.from_numpy(rows).to(self.trainer.device)
                own, state = own.at(rows), {name: values[there] for name, values in state.items()}
            self.state.put(own.ids, own.rounds, round, state)

    def _positions(self, ids: np.ndarray) -> np.ndarray:
        if self._places is None:
            return ids
        strangers = [client for client in ids.tolist() if client not in self._places]
        if strangers:
            raise UserError(f"asked for clients {strangers} that do not live on this node")
        return np.array([self._places[client] for client in ids.tolist()], np.int64)

    def attempt(
        self, act: Callable[[Members], T], members: Members, failed: list[ClientFailure]
    ) -> Iterator[tuple[Members, T]]:
        """Do something for clients at once; where that fails, one by one: only the bad fail.

        Those of several blocks are tried block by block first. Clients that exceed the device's
        memory at once are halved.

        Args:
            act: does it.
            members: the clients.
            failed: is told of the clients for whom it failed.

        Yields:
            Clients, and what ``act`` returned for them.
        """
        try:
            result = act(members)
        except ANYTHING as error:  # a client's data or model may raise anything
            blocks = [at for _, at in members.by_block()]
            parts = blocks if len(blocks) > 1 else self._parts(members, error, failed)
        else:
            yield members, result
            return
        # The error is gone by now, and with it the memory of what it interrupted.
        for at in parts:
            yield from self.attempt(act, members.at(at), failed)

    def _parts(
        self, members: Members, error: BaseException, failed: list[ClientFailure]
    ) -> list[slice]:
        """Return the parts to divide clients into after an error; none: the one has failed."""
        count = len(members.ids)
        if isinstance(error, torch.OutOfMemoryError) and count > 1:
            self.trainer.squeeze(count)
            return [slice(count // 2), slice(count // 2, count)]
        why, own = openly(error), isinstance(error, UserError)
        hidden = self._tell(error) != why
        if (hidden or not own) and why not in self._logged:
            self._logged.add(why)
            ids = members.ids.tolist()
            log.error("clients %s failed: %s", ids, why, exc_info=None if own else error)
        if count == 1:
            failed.append(ClientFailure(int(members.ids[0]), self._tell(error)))
            return []
        return [slice(row, row + 1) for row in range(count)]
