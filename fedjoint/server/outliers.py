"""Rows of a round that are far longer than the others: left out, or scaled down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fedjoint._util.lengths import squared_lengths
from fedjoint.runs.record import Failure
from fedjoint.server.part import Part

_BEYOND = 1e6  # times the median: no training is that far
_FEWEST = 3  # rows, of which one that differs stands out


def left_out(parts: Sequence[Part]) -> tuple[list[Part], list[Failure]]:
    """Return the parts without the clients that sent a million times the median, and these.

    Args:
        parts: of a round, in which clients sent arrays of the same names and shapes.
    """
    found, failed = list(parts), []
    for what, place, times in _longer(parts, _BEYOND):
        part, beyond = found[place], times > _BEYOND
        why = f"its {what} is more than {_BEYOND:g} times as long as the round's median"
        those = part.clients(beyond).tolist()
        failed += [Failure(client, part.node, why, fault=True) for client in those]
        found[place] = part.without(beyond)
    for name in sorted({name for part in found for name in part.heard}):
        for place, liars in _told_nonsense(found, name):
            part = found[place]
            why = f"its {name!r} is more than {_BEYOND:g} times as long as the round's median"
            failed += [Failure(c, part.node, why, fault=True) for c in part.named(liars)]
            beyond = part.behind(liars)
            others = part.clients(beyond)
            why = "its block has a client that sent nonsense"
            failed += [
                Failure(c, part.node, why) for c in others.tolist() if c not in part.named(liars)
            ]
            found[place] = part.without(beyond)
    return found, failed


def _told_nonsense(parts: Sequence[Part], name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each part with clients whose ``name``, of what is heard, is far too long; and these."""
    lengths = []
    for part in parts:
        own = np.zeros(len(part.good))
        if name in part.heard:
            own[part.good] = _lengths(part.heard[name][part.good])
        lengths.append(own)
    usual = _usual(np.concatenate(lengths))
    for place, each in enumerate(lengths):
        if (each > _BEYOND * usual).any():
            yield place, each > _BEYOND * usual


def clipped(parts: Sequence[Part], most: float) -> tuple[list[Part], list[Failure]]:
    """Return the parts with no row above ``most`` times the median length, and whose were.

    Args:
        parts: as for :func:`left_out`.
        most: above 0.
    """
    found, named = list(parts), []
    for what, place, times in _longer(parts, most):
        part = found[place]
        why = f"its {what} is scaled down to {most:g} times the round's median length"
        named += [Failure(c, part.node, why) for c in part.clients(times > most).tolist()]
        found[place] = part.scaled(what, most / times.clip(min=most))
    return found, named


def _longer(parts: Sequence[Part], most: float) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield what was sent, a part with rows above ``most`` times the median, and its times."""
    for what, times in _measured(parts):
        for place, each in enumerate(times):
            if (each > most).any():
                yield what, place, each


def _measured(parts: Sequence[Part]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield what was sent, and for each part ``[rows]`` its lengths over the round's median."""
    for what in parts[0].rows if parts else ():
        lengths = []
        for part in parts:
            rows, kept = part.rows[what], part.kept
            own = np.zeros(len(kept))
            own[kept] = _lengths(rows if kept.all() else rows[kept])  # to select is to copy
            lengths.append(own)
        usual = _usual(np.concatenate(lengths))
        yield what, [each / usual for each in lengths]


def _lengths(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    flat = flat if flat.dtype.kind == "f" else flat.astype(np.float64)
    return np.sqrt(squared_lengths(flat))


def _usual(lengths: np.ndarray) -> float:
    """Return the median of the lengths above zero; of fewer than three, nobody can tell.

    Of an even number it is the lower of the middle two: two of four are not their own measure.
    """
    moved = np.sort(lengths[lengths > 0])
    return float(moved[(len(moved) - 1) // 2]) if len(moved) >= _FEWEST else np.inf
