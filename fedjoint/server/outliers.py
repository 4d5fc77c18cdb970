"""What clients sent that is far larger than what the others did: left out, or scaled down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedjoint.runs.record import Failure
from fedjoint.server.part import Part, lengths_of

_BEYOND = 1e6  # times the median: no training is that far
_FEWEST = 3  # rows, of which one that differs stands out
_USUAL_LOSS = 1.0  # of those that have converged a new client's may be any number of times


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
            own[part.good] = lengths_of(part.heard[name][part.good])
        lengths.append(own)
    median = usual(np.concatenate(lengths))
    for place, each in enumerate(lengths):
        if (each > _BEYOND * median).any():
            yield place, each > _BEYOND * median


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
    for what in parts[0].sent if parts else ():
        lengths = [part.lengths(what) for part in parts]
        median = usual(np.concatenate(lengths))
        yield what, [each / median for each in lengths]


def believed(parts: Sequence[Part], tasks: Sequence[str]) -> tuple[list[Part], list[Failure]]:
    """Return the parts without losses a million times the round's median, and whose these were.

    The clients keep their part in the round: what an update is worth does not depend on its loss.

    Args:
        parts: as for :func:`left_out`.
        tasks: names of the columns of the losses.
    """
    found, named = list(parts), []
    for column, task in enumerate(tasks):
        losses = [np.where(p.good, np.abs(p.reply.reports.losses[:, column]), 0) for p in found]
        losses = [np.where(np.isfinite(each), each, 0) for each in losses]
        most = _BEYOND * usual(np.concatenate(losses), _USUAL_LOSS) if losses else np.inf
        for place, each in enumerate(losses):
            if (beyond := each > most).any():
                part = found[place]
                why = (
                    f"its loss of {task!r} does not count: it is above {most:g}, beside the others'"
                )
                named += [Failure(client, part.node, why) for client in part.named(beyond)]
                found[place] = part.without_losses(beyond, column)
    return found, named


def usual(lengths: np.ndarray, least: float = 0.0) -> float:
    """Return the median of the lengths above zero; of fewer than three, nobody can tell.

    Of an even number it is the lower of the middle two: two of four are not their own measure.

    Args:
        lengths: any number; NaN: unknown.
        least: what is usual in any case.
    """
    moved = np.sort(lengths[lengths > 0])
    return max(least, float(moved[(len(moved) - 1) // 2])) if len(moved) >= _FEWEST else np.inf
