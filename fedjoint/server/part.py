"""What one node was asked in a round, and its checked reply."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedjoint._util.lengths import squared_lengths
from fedjoint.protocol.elsewhere import AnyRows, Elsewhere
from fedjoint.protocol.requests import Asked
from fedjoint.protocol.training import TrainReply, used
from fedjoint.training.method import HEARD

_UPDATE, _BUFFERS, _APART = "update", "change of buffers", "deviation of a task"


@dataclass(frozen=True)
class Part:
    """What one node was asked, and its checked reply.

    Attributes:
        node: its number.
        asked: what it was asked.
        reply: its reply.
        reduce: whether its rows are means of blocks, rather than of clients.
    """

    node: int
    asked: Asked
    reply: TrainReply
    reduce: bool

    @property
    def good(self) -> np.ndarray:
        """``[n]`` bool, which of the clients trained."""
        return self.reply.reports.good

    @property
    def kept(self) -> np.ndarray:
        """``[rows]`` bool, which rows count."""
        return used(self.asked, self.good, self.reduce)

    @property
    def bytes_up(self) -> int:
        """Bytes that its clients sent, as if each sent its own update and deviations."""
        further = (self.asked.tasks[self.good].sum(1) - 1).clip(min=0).sum()
        row_bytes = self.reply.apart.row_bytes if self.reply.apart else 0
        return self.reply.bytes_per_client * int(self.good.sum()) + row_bytes * int(further)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What clients sent, as far as it has to be alike to be stacked."""
        extras = {name: (str(e.dtype), e.shape[1:]) for name, e in self.extras.items()}
        return self.reply.rows is not None, *sorted(extras.items())

    @property
    def extras(self) -> dict[str, np.ndarray]:
        """What clients sent beside their updates, without what the strategy as a whole hears."""
        return {n: e for n, e in self.reply.extras.items() if not n.startswith(HEARD)}

    @property
    def heard(self) -> dict[str, np.ndarray]:
        """What -> ``[n, ...]`` of it, that the strategy as a whole hears of each client."""
        names = [name for name in self.reply.extras if name.startswith(HEARD)]
        return {name.removeprefix(HEARD): self.reply.extras[name] for name in names}

    @property
    def rows(self) -> dict[str, AnyRows]:
        """What -> ``[rows, ...]`` of it, of all that has a length."""
        found: dict[str, AnyRows | None] = {_UPDATE: self.reply.rows, _BUFFERS: self.reply.buffers}
        rows = {name: array for name, array in found.items() if array is not None}
        if not self.reduce:
            rows |= {n: e for n, e in self.extras.items() if e.dtype.kind == "f"}
        return rows

    @property
    def sent(self) -> tuple[str, ...]:
        """Names of all that has a length, row by row: see :meth:`lengths`."""
        return (*self.rows, *([] if self.reply.apart is None else [_APART]))

    def lengths(self, what: str) -> np.ndarray:
        """Return ``[rows]`` float64, the lengths of ``what`` (of :attr:`sent`); 0: not kept.

        Of deviations it is that of all of a client's (or block's) together.
        """
        kept = self.kept
        own = np.zeros(len(kept))
        if what == _APART:
            apart = self.reply.apart
            assert apart is not None, "it is sent"
            squares = lengths_of(apart.rows) ** 2
            own[kept] = np.sqrt(np.bincount(apart.seats.owners, squares, int(kept.sum())))
        else:
            rows = self.rows[what]
            own[kept] = lengths_of(rows if kept.all() else rows[kept])  # to select is to copy
        return own

    def clients(self, rows: np.ndarray) -> np.ndarray:
        """Return the ids of the clients that trained and are behind ``rows`` (bool)."""
        return self.asked.clients[self._of(rows) & self.good]

    def named(self, clients: np.ndarray) -> list[int]:
        """Return the ids of ``clients`` (``[n]`` bool)."""
        found: list[int] = self.asked.clients[clients].tolist()
        return found

    def behind(self, clients: np.ndarray) -> np.ndarray:
        """``[rows]`` bool, the rows that have a part of ``clients`` (``[n]`` bool)."""
        return used(self.asked, clients, self.reduce)

    def without(self, rows: np.ndarray) -> Part:
        """Return the part as if the clients behind ``rows`` (bool) had not trained."""
        good = self.good & ~self._of(rows)
        reports = replace(self.reply.reports, good=good)
        apart = self.reply.apart
        if apart is not None:
            apart = apart.only(used(self.asked, good, self.reduce)[self.kept])
        return replace(self, reply=replace(self.reply, reports=reports, apart=apart))

    def without_losses(self, clients: np.ndarray, task: int) -> Part:
        """Return the part as if ``clients`` (``[n]`` bool) had said no loss of a task."""
        losses = self.reply.reports.losses.copy()
        losses[clients, task] = np.nan
        reports = replace(self.reply.reports, losses=losses)
        return replace(self, reply=replace(self.reply, reports=reports))

    def scaled(self, what: str, factors: np.ndarray) -> Part:
        """Return the part with each row of ``what`` times its factor ``[rows]``."""
        if what == _APART:
            apart = self.reply.apart
            assert apart is not None, "it is sent"
            own = factors[self.kept][apart.seats.owners].astype(np.float32)
            apart = replace(apart, rows=_scaled(apart.rows, own))
            return replace(self, reply=replace(self.reply, apart=apart))
        rows = self.rows[what]
        new = _scaled(rows, factors)
        if what == _UPDATE:
            return replace(self, reply=replace(self.reply, rows=new))
        assert isinstance(new, np.ndarray), "only updates are elsewhere"
        if what == _BUFFERS:
            reply = replace(self.reply, buffers=new)
        else:
            reply = replace(self.reply, extras={**self.reply.extras, what: new})
        return replace(self, reply=reply)

    def _of(self, rows: np.ndarray) -> np.ndarray:
        return np.repeat(rows, self.asked.sizes) if self.reduce else rows


def _scaled(rows: AnyRows, factors: np.ndarray) -> AnyRows:
    if isinstance(rows, Elsewhere):
        return rows.scaled(factors)
    shape = len(rows), *[1] * (rows.ndim - 1)
    return rows * factors.reshape(shape).astype(rows.dtype)


def lengths_of(rows: AnyRows) -> np.ndarray:
    """Return ``[n]`` float64, the lengths of ``rows`` ``[n, ...]``."""
    if isinstance(rows, Elsewhere):
        return rows.lengths
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    flat = flat if flat.dtype.kind == "f" else flat.astype(np.float64)
    return np.sqrt(squared_lengths(flat))
