"""A tree of partial sums over the machines of a Ray cluster.

Means of blocks stay where they were made, one of a machine's workers sums those of the machine, and
where machines are many, theirs are summed in groups, until few are left for the driver. Which rows
are summed first changes no bit (:mod:`fedjoint._util.exact`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import ray
from flwr.app import ArrayRecord, Message

from fedjoint._util.exact import Term, combine
from fedjoint.errors import UserError, said
from fedjoint.protocol.elsewhere import Elsewhere, Leaf, LostError

if TYPE_CHECKING:
    from fedjoint.engines.ray import Workers

#: Bytes of a row from which it stays where it was made: a further round trip takes milliseconds.
LEAST = 1 << 20

_FAN = 8  # partial sums that are summed in one place
_RECORDS = ("updates", "deviations")
_PATIENCE = 30.0  # seconds in which a worker says that it lives


class Place(NamedTuple):
    """A row of some that are kept, as a part of a sum: what a worker hears of a leaf.

    Attributes:
        kept: which of the objects with rows.
        record: which of the rows in it.
        place: of the row in them.
        slot: the number of the sum.
        weight: of the row.
        factor: float32, by which it is to be multiplied first.
    """

    kept: int
    record: str
    place: int
    slot: int
    weight: float
    factor: np.float32


class Sums:
    """What every worker can do: sum the rows of its machine, and the sums of others."""

    def sum_rows(
        self, parts: Sequence[Place], quanta: Mapping[int, float], *kept: Mapping[str, np.ndarray]
    ) -> list[Term]:
        """Return the sums of rows of this machine."""
        return combine(_weighed(parts, kept), quanta)

    def sum_sums(self, quanta: Mapping[int, float], *sums: list[Term]) -> list[Term]:
        """Return the sums of what several machines summed."""
        return combine([term for own in sums for term in own], quanta)


def set_apart(reply: Message, least: int) -> tuple[Message, dict[str, np.ndarray] | None]:
    """Take rows of at least ``least`` bytes out of a reply of means; return both."""
    rows: dict[str, np.ndarray] = {}
    for name, record in _records(reply):
        values = record[name].numpy()
        if len(values) and values[0].nbytes >= least:
            rows[name], record[name] = values, Elsewhere(values)
    return reply, rows or None


def _records(reply: Message) -> list[tuple[str, ArrayRecord]]:
    """Return the records of rows in a reply, by the name that they and their array have."""
    found = reply.content.array_records if reply.has_content() else {}
    return [(name, found[name]) for name in _RECORDS if name in found and name in found[name]]


class Machines:
    """Has the machines of a cluster sum the rows that their workers keep.

    Args:
        workers: the actors.
        of: node -> its machine.
    """

    def __init__(self, workers: Workers, of: Mapping[int, str]) -> None:
        self._workers, self._of = workers, of
        self.busy: set[int] = set()  # nodes that have not replied in time

    def take(self, reply: Message, rows: Any) -> Message:
        """Return a reply that knows where its rows are.

        Args:
            reply: of a node that may have kept rows.
            rows: reference to them.
        """
        for name, record in _records(reply):
            found = record[name]
            if isinstance(found, Elsewhere):
                found.kept, found.summing = (reply.metadata.src_node_id, name, rows), self
        return reply

    def sums(self, leaves: Sequence[Leaf], quanta: Mapping[int, float]) -> list[Term]:
        """Return the sums, of few machines; see :class:`fedjoint.protocol.elsewhere.Summing`."""
        try:
            return self._sums(leaves, quanta)
        except ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
            if not isinstance(cause, ray.exceptions.RayError):
                text = f"a worker cannot sum the updates of its machine: {said(cause)}"
                raise UserError(text) from None
            raise LostError(self._workers.replace_dead(_PATIENCE)) from error

    def _sums(self, leaves: Sequence[Leaf], quanta: Mapping[int, float]) -> list[Term]:
        by_machine: dict[str, list[Leaf]] = {}
        for leaf in leaves:
            by_machine.setdefault(self._of[leaf.rows.kept[0]], []).append(leaf)
        shared, here, level = ray.put(dict(quanta)), [], []
        for own in by_machine.values():
            parts, kept = _parts(own)
            if (actor := self._free(own)) is None:
                here += _weighed(parts, ray.get(kept))
            else:
                level.append((actor, actor.sum_rows.remote(parts, shared, *kept)))
        while len(level) > _FAN:
            groups = [level[start : start + _FAN] for start in range(0, len(level), _FAN)]
            level = [
                (group[0][0], group[0][0].sum_sums.remote(shared, *(sums for _, sums in group)))
                for group in groups
            ]
        return here + [term for own in ray.get([sums for _, sums in level]) for term in own]

    def _free(self, leaves: Sequence[Leaf]) -> Any:
        """Return a worker with rows of one machine that is not at work; None: all are.

        Whoever has replied is done, unless another of its messages has had no reply in time.
        """
        nodes = dict.fromkeys(leaf.rows.kept[0] for leaf in leaves)
        free = [node for node in nodes if node not in self.busy]
        return self._workers.actors[free[0]] if free else None


def _weighed(parts: Sequence[Place], kept: Sequence[Mapping[str, np.ndarray]]) -> list[Term]:
    """Return the rows of ``kept`` that are meant, weighed."""
    terms = []
    for part in parts:
        row = kept[part.kept][part.record][part.place]
        scaled = row if part.factor == 1 else row * part.factor
        terms.append(Term(part.slot, scaled, part.weight))
    return terms


def _parts(leaves: Sequence[Leaf]) -> tuple[list[Place], list[Any]]:
    """Return what a worker hears of the leaves, and the references to their rows."""
    kept: dict[Any, int] = {}
    parts = []
    for slot, weight, rows, place in leaves:
        _, record, reference = rows.kept
        at = kept.setdefault(reference, len(kept))
        parts.append(Place(at, record, int(rows.places[place]), slot, weight, rows.factors[place]))
    return parts, list(kept)
