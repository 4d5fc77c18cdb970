"""The reply to a request to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message, RecordDict
from torch import Tensor

from fedjoint.config.schema import CompressionConfig
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.protocol import wire
from fedjoint.protocol.arrays import to_tensor
from fedjoint.protocol.checks import (
    MOST,
    Line,
    Name,
    Number,
    Seconds,
    counts,
    finite_rows,
    shaped,
)
from fedjoint.protocol.compression import decode
from fedjoint.protocol.deviations import Received, receive
from fedjoint.protocol.elsewhere import AnyRows, elsewhere, finite_elsewhere
from fedjoint.protocol.reports import ClientFailure, ClientReports, columns, of_asked
from fedjoint.protocol.requests import Asked

_BYTES = 16  # of a number, at most, with its place where a compression sends that, too
_HEADER = 4096  # bytes that a compression may send beside them


@dataclass(frozen=True)
class Terms:
    """What the replies of a round have to be like.

    Attributes:
        layout: of the P shared parameters and the B numbers of the shared buffers.
        tasks: all tasks, by name.
        reduce: whether replies hold a mean per block rather than a row per client.
        shares: whether the run's local method has clients send updates.
        compression: how they are to send them.
        within: whether sampled clients were to compare their tasks with one another.
        deviations: whether clients with several tasks were to tell their updates apart.
    """

    layout: Layout
    tasks: tuple[str, ...]
    reduce: bool
    shares: bool
    compression: CompressionConfig
    within: bool = False
    deviations: bool = False


@dataclass(frozen=True)
class _Said:
    tasks: tuple[Name, ...]
    shares: bool
    failed: tuple[ClientFailure, ...]
    seconds: Seconds
    bytes_per_client: Number
    fallback: Line | None


@dataclass(frozen=True)
class TrainReply:
    """What a node says after it trained.

    Attributes:
        tasks: its tasks, in the order of the columns of ``reports.losses``.
        shares: whether its clients send updates.
        failed: the clients that did not train, with reasons.
        seconds: how long it took.
        bytes_per_client: what one client sends, without deviations.
        fallback: why clients were not batched, or fewer at once, where they were not.
        reports: a row for each client asked for.
        block_seconds: ``[b]`` float64, how long each block took.
        rows: ``[n, P]`` float32 updates, or ``[b, P]`` means of blocks, which may be elsewhere (see
            :mod:`fedjoint.protocol.elsewhere`); None where clients share nothing, or where a node
            sends ``payload`` instead.
        payload: the compressed updates of the clients that trained; decoded into ``rows`` by
            :meth:`unpack`.
        buffers: ``[n, B]`` or ``[b, B]`` float32, by how much the shared buffers moved; None where
            clients share nothing.
        sample: ``[m, P]`` float32 updates of the sampled clients, where rows are means of blocks.
        extras: further ``[n, ...]`` arrays of the local method.
        within: ``[m, tasks, tasks]`` float64, inner products of the gradients of each sampled
            client's tasks, NaN where it has not both; None where nobody asked.
        deviations: what travels of the deviations of the clients (or blocks) that count; checked
            and put into ``apart`` by :meth:`unpack`.
        apart: by how much the updates of single tasks differ from their clients' updates; None
            where nobody asked.
        received: ``[n]`` int64, which of the backbones that the node was sent each client had,
            and once :meth:`unpack` has checked that, which of the run's; None: there is only one.
    """

    tasks: tuple[str, ...]
    shares: bool
    failed: tuple[ClientFailure, ...]
    seconds: float
    bytes_per_client: int
    fallback: str | None
    reports: ClientReports
    block_seconds: np.ndarray
    rows: AnyRows | None
    payload: Mapping[str, Tensor]
    buffers: np.ndarray | None
    sample: np.ndarray | None
    extras: Mapping[str, np.ndarray]
    within: np.ndarray | None = None
    deviations: Mapping[str, np.ndarray | Tensor] = field(default_factory=dict)
    apart: Received | None = None
    received: np.ndarray | None = None

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        said = {name: getattr(self, name) for name in _Said.__dataclass_fields__}
        payload = {f"payload.{name}": values for name, values in self.payload.items()}
        return wire.pack(
            said | {"failed": [vars(failure) for failure in self.failed]},
            updates=payload or _some("updates", self.rows),
            buffers=_some("buffers", self.buffers),
            sample=_some("sample", self.sample),
            extras=self.extras,
            within=_some("within", self.within),
            deviations=self.deviations,
            report={**vars(self.reports), "block_seconds": self.block_seconds}
            | _some("received", self.received),
        )

    @classmethod
    def unpack(
        cls, message: Message, asked: Asked, sampled: np.ndarray, terms: Terms
    ) -> TrainReply:
        """Return the checked reply in ``message``, its losses in the order of ``terms.tasks``.

        Args:
            message: the reply.
            asked: what the node was asked.
            sampled: ``[n]`` bool, the clients whose updates were wanted one by one.
            terms: of the round.

        Raises:
            UserError: the reply is damaged, or not what was asked for.
        """
        said, report = wire.read(_Said, message), wire.arrays(message, "report")
        of_asked(said.failed, asked)
        reports = ClientReports.read(report, asked, said.tasks, terms.tasks)
        if said.shares is not terms.shares:
            raise UserError("its local method is not the run's: run one version on every machine")
        block_seconds = shaped(report, "block_seconds", asked.blocks.shape, "f")
        if not ((block_seconds >= 0).all() and (block_seconds <= MOST).all()):
            raise UserError("a time is negative, or not finite")
        received = _Arrays(message, reports.good, used(asked, reports.good, terms.reduce), terms)
        extras = received.extras()
        most = _BYTES * terms.layout.size + sum(e[:1].nbytes for e in extras.values()) + _HEADER
        if said.bytes_per_client > most:
            raise UserError(f"a client of it cannot send more than {most} bytes, as it says")
        return cls(
            **{**vars(said), "tasks": terms.tasks},
            reports=reports,
            block_seconds=block_seconds,
            rows=received.rows() if terms.shares else None,
            payload={},
            buffers=received.buffers() if terms.shares else None,
            sample=received.sample(sampled) if terms.shares and terms.reduce else None,
            extras=extras,
            within=received.within(sampled, said.tasks) if terms.within else None,
            apart=received.apart(asked, said.tasks) if terms.deviations and terms.shares else None,
            received=_backbones(report, asked, reports.good),
        )


def _backbones(
    report: Mapping[str, np.ndarray], asked: Asked, good: np.ndarray
) -> np.ndarray | None:
    """Return ``[n]`` int64, which of the run's backbones each client had."""
    if asked.received is None or asked.backbones is None:
        return None
    had = counts(report, "received", len(good), len(asked.backbones) - 1)
    if (good & (asked.received >= 0) & (had != asked.received)).any():
        raise UserError("a client of it says that it had another backbone than it was sent")
    return asked.backbones[had]


def used(asked: Asked, good: np.ndarray, reduce: bool) -> np.ndarray:
    """Say which rows of a reply count: those of clients that trained, or of their blocks."""
    if not reduce:
        return good
    block = np.repeat(np.arange(len(asked.blocks)), asked.sizes)
    return np.bincount(block, good, len(asked.blocks)) > 0


@dataclass(frozen=True)
class _Arrays:
    """The arrays of a reply; rows that do not count are of no use, and not checked.

    Attributes:
        message: the reply.
        good: ``[n]`` bool, which clients trained.
        used: which rows count.
        terms: of the round.
    """

    message: Message
    good: np.ndarray
    used: np.ndarray
    terms: Terms

    def rows(self) -> AnyRows:
        """Return the updates, decoded."""
        size, count = self.terms.layout.parameters.size, int(self.good.sum())
        if not count:
            return np.zeros((len(self.used), size), np.float32)
        if self.terms.reduce:
            away = elsewhere(self.message, "updates", (len(self.used), size))
            if away is not None:
                return finite_elsewhere("an update", away, self.used)
        updates, compression = wire.arrays(self.message, "updates"), self.terms.compression
        if compression.name != "none":
            payload = {n.removeprefix("payload."): to_tensor(a) for n, a in updates.items()}
            rows = np.zeros((len(self.good), size), np.float32)
            rows[self.good] = decode(payload, count, size, compression).numpy()
        else:
            rows = shaped(updates, "updates", (len(self.used), size), "f")
        return finite_rows("an update", rows, self.used)

    def buffers(self) -> np.ndarray:
        """Return the changes of the shared buffers."""
        layout = self.terms.layout
        shape = len(self.used), layout.size - layout.parameters.size
        if not shape[1] or not self.good.any():
            return np.zeros(shape, np.float32)
        rows = shaped(wire.arrays(self.message, "buffers"), "buffers", shape, "f")
        return finite_rows("a change of buffers", rows, self.used)

    def sample(self, sampled: np.ndarray) -> np.ndarray:
        """Return the updates of the ``sampled`` clients."""
        good = self.good[sampled]
        shape = len(good), self.terms.layout.parameters.size
        if not good.any():
            return np.zeros(shape, np.float32)
        rows = shaped(wire.arrays(self.message, "sample"), "sample", shape, "f")
        return finite_rows("a sampled update", rows, good)

    def extras(self) -> dict[str, np.ndarray]:
        """Return the local method's arrays; without a client that trained, there are none."""
        extras = wire.arrays(self.message, "extras") if self.good.any() else {}
        for name, values in extras.items():
            shaped(extras, name, (len(self.good), *values.shape[1:]), "biuf")
            to_tensor(values[:0])  # PyTorch knows the type
            if not np.isfinite(values[self.good]).all():
                raise UserError(f"{name!r} is not finite")
        return extras

    def apart(self, asked: Asked, named: tuple[str, ...]) -> Received:
        """Return the deviations of single tasks."""
        terms, tasks = self.terms, asked.tasks
        if terms.reduce:
            tasks = tasks[np.cumsum(asked.sizes) - asked.sizes]
        order = np.array(columns(named, terms.tasks), np.int64)
        size = terms.layout.parameters.size
        return receive(self.message, tasks[self.used], order, size, terms.compression)

    def within(self, sampled: np.ndarray, named: tuple[str, ...]) -> np.ndarray:
        """Return the inner products of tasks' gradients, in the order of the run's tasks.

        A node that measured none, or what is not finite, leaves them unknown.
        """
        names = self.terms.tasks
        found = np.full((int(sampled.sum()), len(names), len(names)), np.nan)
        arrays = wire.arrays(self.message, "within")
        if arrays:
            said = shaped(arrays, "within", (len(found), len(named), len(named)), "f")
            places = np.array(columns(named, names))
            found[np.ix_(np.arange(len(found)), places, places)] = said
        return np.where(np.isfinite(found), found, np.nan)


def _some(name: str, rows: AnyRows | None) -> dict[str, np.ndarray]:
    return {name: rows} if isinstance(rows, np.ndarray) and rows.size else {}
