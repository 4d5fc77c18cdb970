"""Means of blocks that stay on the machine where they were made, to be summed there.

The nodes of one machine of a cluster send sums of these in place of the rows. What each row weighs
is known once all nodes have replied, so the server hears at first how long the rows are, and then
asks for the sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import Message

from fedjoint._util.exact import Term, peaks
from fedjoint._util.lengths import squared_lengths
from fedjoint.errors import UserError


class LostError(Exception):
    """A machine died with rows that were to be summed there.

    Args:
        nodes: the nodes that died, as far as known.
    """

    def __init__(self, nodes: Sequence[int]) -> None:
        super().__init__(f"nodes {list(nodes)} died")
        self.nodes = list(nodes)


class Leaf(NamedTuple):
    """A row that is elsewhere, as a part of a sum.

    Attributes:
        slot: the number of the sum.
        weight: of the row.
        rows: hold the row.
        place: of the row in them.
    """

    slot: int
    weight: float
    rows: Elsewhere
    place: int


class Summing(Protocol):
    """What sums rows where they are: part of a grid."""

    def sums(self, leaves: Sequence[Leaf], quanta: Mapping[int, float]) -> list[Term]:
        """Return terms for the same sums, as few as pay.

        Args:
            leaves: of any sums.
            quanta: of all sums, by slot.

        Raises:
            LostError: a machine died.
        """


class Elsewhere(FlowerArray):
    """Float32 rows ``[n, P]`` that are elsewhere; indexed as an array is, by row.

    Attributes:
        lengths: ``[n]`` float64, of the rows.
        peaks: ``[n]`` float32, the largest magnitude in each.
        factors: ``[n]`` float32, by which each row is to be multiplied first.
        places: ``[n]`` int64, where each is among the rows that the grid keeps.
        kept: how the grid finds these.
        summing: sums them; with ``kept``, set by the grid that received the reply.
    """

    kept: Any
    summing: Summing

    def __init__(self, rows: np.ndarray) -> None:
        self.dtype, self.shape, self.stype = str(rows.dtype), rows.shape, "elsewhere"
        self.lengths, self.peaks = np.sqrt(squared_lengths(rows)), peaks(rows)
        self.factors = np.ones(len(rows), np.float32)
        self.places = np.arange(len(rows))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: np.ndarray) -> Elsewhere:
        columns = ("lengths", "peaks", "factors", "places")
        found = self._with(**{name: getattr(self, name)[at] for name in columns})
        found.shape = len(found.places), self.shape[1]
        return found

    def scaled(self, factors: np.ndarray) -> Elsewhere:
        """Return the rows times ``factors`` ``[n]``, in float32."""
        own = factors.astype(np.float32)
        return self._with(
            factors=self.factors * own, peaks=self.peaks * own, lengths=self.lengths * own
        )

    def _with(self, **changed: Any) -> Elsewhere:
        found = Elsewhere.__new__(Elsewhere)
        found.__dict__.update(self.__dict__, **changed)
        return found


#: Rows ``[n, P]``, here or elsewhere.
AnyRows = np.ndarray | Elsewhere


def finite_elsewhere(what: str, rows: Elsewhere, used: np.ndarray) -> Elsewhere:
    """Return ``rows`` if those that are ``used`` (``[n]`` bool) are finite.

    Raises:
        UserError: they are not.
    """
    if not np.isfinite(rows.lengths[used]).all():
        raise UserError(f"{what} is not finite")
    return rows


def elsewhere(message: Message, record: str, shape: tuple[int, ...]) -> Elsewhere | None:
    """Return the rows of a record that are elsewhere, where they are and have ``shape``."""
    arrays = message.content.array_records.get(record)
    found = None if arrays is None else arrays.get(record)
    return found if isinstance(found, Elsewhere) and found.shape == shape else None
