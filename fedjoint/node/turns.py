"""In which order the clients of a request work, and how long they may take."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from fedjoint._util.limit import LateError, limited
from fedjoint.node.jobs import Jobs, Members
from fedjoint.protocol.reports import ClientFailure

T = TypeVar("T")

_SOONEST = 1e-6  # seconds


@dataclass(frozen=True)
class Turn(Generic[T]):
    """What some clients did.

    Attributes:
        members: the clients.
        result: what doing it gave.
        seconds: how long it took.
    """

    members: Members
    result: T
    seconds: float


class Turns:
    """Lets the clients of a request work, one job after the other, within the round's time.

    A slow client must not cost the others their round. A job of several clients gets half of the
    time that is left while others wait, and one of several blocks a quarter; if that is not enough,
    its blocks come last, each on its own, and then their clients. So do clients that were late in
    an earlier request.

    Args:
        jobs: divides the clients.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._late: Counter[int] = Counter()

    def run(
        self,
        work: Iterable[Members],
        act: Callable[[Members], T],
        failed: list[ClientFailure],
        seconds: float,
    ) -> Iterator[Turn[T]]:
        """Yield what ``act`` gives, in turns.

        Args:
            work: the clients of each job.
            act: does it for some clients.
            failed: is told of the clients that failed, or were late.
            seconds: that all of it may take.
        """
        end = time.monotonic() + seconds
        waiting = deque(self._in_order(work))
        while waiting:
            members = waiting.popleft()
            left = end - time.monotonic()
            if left <= 0:
                failed += _failures(members, "its turn did not come", seconds)
                continue
            several = members.blocks[0] < members.blocks[-1]
            alone = not (waiting or several)
            share = 1 if alone else 1 / 4 if several else 1 / 2
            before, done = len(failed), set[int]()
            parts = self._jobs.attempt(act, members, failed)
            try:
                # One by one: what one holds is gone before the next takes memory.
                for part, result, took in _timed(parts, share * left):
                    done.update(part.ids.tolist())
                    yield Turn(part, result, took)
            except LateError:
                done.update(failure.client for failure in failed[before:])
                late = members.at(np.flatnonzero([i not in done for i in members.ids.tolist()]))
                if not several:
                    self._late.update(late.ids.tolist())
                if several:
                    waiting.extend(late.at(at) for _, at in late.by_block())
                elif alone or len(late.ids) == 1:
                    failed += _failures(late, "it did not finish", seconds)
                else:
                    waiting.extend(_each(late))
            else:
                done.update(members.ids.tolist())
            for client in done if self._late else ():
                self._late.pop(client, None)

    def _in_order(self, work: Iterable[Members]) -> Iterator[Members]:
        """Yield the jobs, without the clients that were late; these come last, one by one."""
        last: list[Members] = []
        for members in work:
            late = np.array([client in self._late for client in members.ids.tolist()], bool)
            if not late.any():
                yield members
                continue
            if not late.all():
                yield members.at(np.flatnonzero(~late))
            last += _each(members.at(np.flatnonzero(late)))
        yield from sorted(last, key=lambda one: self._late[int(one.ids[0])])


def _failures(members: Members, what: str, seconds: float) -> list[ClientFailure]:
    why = f"{what} within strategy.timeout = {seconds:g} s"
    return [ClientFailure(client, why) for client in members.ids.tolist()]


def _timed(
    parts: Iterator[tuple[Members, T]], seconds: float
) -> Iterator[tuple[Members, T, float]]:
    """Yield what ``parts`` yields, and how long each took; all of them may take ``seconds``.

    Raises:
        LateError: they take longer.
    """
    end = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        with limited(max(_SOONEST, end - began)):
            found = next(parts, None)
        if found is None:
            return
        yield *found, time.monotonic() - began


def _each(members: Members) -> Iterator[Members]:
    for row in range(len(members.ids)):
        yield members.at(slice(row, row + 1))
