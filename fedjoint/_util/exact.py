"""Sums of rows that are the same to the bit in any order, and wherever a part of them is summed.

Every term is rounded to a whole number of quanta, so small and so few that float64 adds them up
without rounding: sums of sums are then what one long sum is. After Demmel and Nguyen, "Fast
Reproducible Floating-Point Summation", ARITH 2013: their first step, with a quantum for each sum
that is known beforehand; further folds for what falls below it are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_BITS = 50  # of the largest term: of float64's 53, two are for the sum's rounding and its sign
_WIDTH = 1 << 15  # numbers worked on at a time: they stay in the processor's cache


class Term(NamedTuple):
    """A part of a sum.

    Attributes:
        slot: the number of the sum.
        row: ``[P]``, float32 to be weighed, or float64 the sum of several.
        weight: of a float32 row.
    """

    slot: int
    row: np.ndarray
    weight: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether the row is in quanta already."""
        return self.row.dtype == np.float64


def peaks(rows: np.ndarray) -> np.ndarray:
    """Return ``[n]`` float32, the largest magnitude in each of ``rows`` ``[n, P]``."""
    if not rows.size:
        return np.zeros(len(rows), np.float32)
    return np.maximum(rows.max(1), -rows.min(1))


def quantum(weights: Iterable[float], largest: Iterable[float]) -> float:
    """Return the quantum of a sum: 2^-50 of the most that it can be, or up to twice that.

    Args:
        weights: of its rows, not negative.
        largest: the :func:`peaks` of its rows.
    """
    # fsum rounds once, whatever the order.
    bound = math.fsum(w * p for w, p in zip(weights, largest, strict=True))
    return math.ldexp(1.0, math.frexp(bound)[1] - _BITS)


def combine(terms: Sequence[Term], quanta: Mapping[int, float]) -> list[Term]:
    """Add up terms by slot; what is alone in its slot stays as it is, float32 if it was.

    Args:
        terms: any.
        quanta: of all slots, by number.
    """
    by_slot: dict[int, list[Term]] = {}
    for term in terms:
        by_slot.setdefault(term.slot, []).append(term)
    return [
        own[0] if len(own) == 1 else Term(slot, total(own, quanta[slot]))
        for slot, own in by_slot.items()
    ]


def total(terms: Sequence[Term], quantum: float) -> np.ndarray:
    """Return ``[P]`` float64, the sum of the terms of one slot, at least one."""
    # Where this is added, the last bit of the result is worth one quantum.
    magnet = 1.5 * 2.0**52 * quantum
    size = len(terms[0].row)
    out, room = np.zeros(size), np.empty(min(size, _WIDTH))
    for start in range(0, size, _WIDTH):
        at = slice(start, start + _WIDTH)
        part = out[at]
        scaled = room[: len(part)]
        for term in terms:
            if term.whole:
                part += term.row[at]
            else:
                np.multiply(term.row[at], term.weight, out=scaled, dtype=np.float64)
                scaled += magnet
                scaled -= magnet
                part += scaled
    return out
