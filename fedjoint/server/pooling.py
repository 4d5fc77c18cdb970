"""Means of blocks -> a row for all clients with the same tasks and the same backbone.

The sums are exact in any order (:mod:`fedjoint._util.exact`): so are those of rows that stayed on
the machines of a cluster (:mod:`fedjoint.protocol.elsewhere`), which are summed there first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.exact import Term, peaks, quantum, total
from fedjoint._util.logs import event
from fedjoint.protocol.elsewhere import AnyRows, Elsewhere, Leaf, Summing
from fedjoint.server.columns import Columns
from fedjoint.server.part import Part
from fedjoint.server.updates import Deviations

log = logging.getLogger("fedjoint.server.pooling")


class _Source(NamedTuple):
    """Rows to be summed.

    Attributes:
        rows: ``[n, P]``.
        slots: ``[n]`` int64, the number of the sum that each is of.
        weights: ``[n]`` float64.
    """

    rows: AnyRows
    slots: np.ndarray
    weights: np.ndarray


def pooled(
    parts: Sequence[Part], blocks: Columns, order: np.ndarray
) -> tuple[Columns, Tensor, Deviations | None]:
    """Return what all clients alike sent on the mean.

    Args:
        parts: what nodes replied, means of blocks.
        blocks: what is known of the rows of all parts, by block.
        order: ``[rows]`` what sorts the rows as they arrived so.

    Returns:
        What is known of each row, its key that of its first block; ``[rows, P]`` float32 the rows;
        and by how much the updates of single tasks differ, where that was asked for.

    Raises:
        LostError: a machine died with rows of its own.
    """
    rests = np.concatenate([_rests(part) for part in parts])[order]
    pool, first = _alike(np.column_stack([blocks.received, rests, blocks.tasks]))
    found = _together(blocks, pool, first)
    shares = blocks.weights / np.where(found.weights > 0, found.weights, 1)[pool]
    ends = np.cumsum([part.kept.sum() for part in parts])[:-1]
    sources: list[_Source] = []
    for part, at in zip(parts, np.split(np.argsort(order), ends), strict=True):
        sources += _sources(part, pool[at], shares[at], len(first))
    slots, sums = _sums(sources)
    rows, apart = sums[: len(first)], sums[len(first) :]
    if all(part.reply.apart is None for part in parts):
        return found, rows, None
    owners, tasks = np.divmod(slots[len(first) :] - len(first), blocks.tasks.shape[1])
    seats = (owners, tasks, rests[first][owners])
    return found, rows, Deviations(apart, *(torch.from_numpy(column) for column in seats))


def _rests(part: Part) -> np.ndarray:
    """``[rows]`` int64, the task of each row of which no deviation travels; -1: there are none."""
    found = np.full(int(part.kept.sum()), -1)
    if (apart := part.reply.apart) is not None:
        found[apart.seats.owners] = apart.seats.rests
    return found


def _alike(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``[n]`` numbers of rows that are alike, in the order of the ``[k]`` first of each."""
    _, first, number = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number.reshape(-1)], np.sort(first)


def _together(blocks: Columns, pool: np.ndarray, first: np.ndarray) -> Columns:
    """Return what is known of each pool; ``pool`` and ``first`` are those of :func:`_alike`."""

    def sums(values: np.ndarray) -> np.ndarray:
        found = np.zeros(len(first), values.dtype)
        np.add.at(found, pool, values)  # one after the other, by block
        return found

    return Columns(
        keys=blocks.keys[first],
        weights=sums(blocks.weights),
        counts=sums(blocks.counts),
        examples=sums(blocks.examples),
        steps=sums(blocks.steps),
        tasks=blocks.tasks[first],
        received=blocks.received[first],
    )


def _sources(part: Part, pool: np.ndarray, shares: np.ndarray, pools: int) -> Iterator[_Source]:
    """Yield the rows of a part, and its deviations, whose slots follow: by pool, then by task.

    Args:
        part: the part.
        pool: ``[rows]`` of its rows that count.
        shares: ``[rows]`` float64, what each weighs in its pool.
        pools: how many there are.
    """
    rows, kept, apart = part.reply.rows, part.kept, part.reply.apart
    assert rows is not None, "clients that share nothing have no updates"
    yield _Source(rows if kept.all() else rows[kept], pool, shares)
    if apart is not None:
        own, tasks = apart.seats.owners, part.asked.tasks.shape[1]
        yield _Source(apart.rows, pools + pool[own] * tasks + apart.seats.tasks, shares[own])


def _sums(sources: Sequence[_Source]) -> tuple[np.ndarray, Tensor]:
    """Return ``[k]`` slots, ascending, and ``[k, P]`` float32 sums of the rows of each."""
    every = np.concatenate([source.slots for source in sources])
    slots, place = np.unique(every, return_inverse=True)
    weights = np.concatenate([source.weights for source in sources])
    largest = np.concatenate([_peaks(source.rows) for source in sources])
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place.reshape(-1), minlength=len(slots)))[:-1]
    quanta = {
        slot: quantum(weights[at].tolist(), largest[at].tolist())
        for slot, at in zip(slots.tolist(), np.split(order, ends), strict=True)
    }
    terms: dict[int, list[Term]] = {slot: [] for slot in quanta}
    for term in _terms(sources, quanta):
        terms[term.slot].append(term)
    out = torch.empty((len(slots), sources[0].rows.shape[1]))
    for row, (slot, own) in zip(out.numpy(), terms.items(), strict=True):
        row[...] = total(own, quanta[slot])
    return slots, out


def _peaks(rows: AnyRows) -> np.ndarray:
    return rows.peaks if isinstance(rows, Elsewhere) else peaks(rows)


def _terms(sources: Sequence[_Source], quanta: dict[int, float]) -> list[Term]:
    """Return the terms of all sums, those from elsewhere as few as pay."""
    here: list[Term] = []
    away: dict[Summing, list[Leaf]] = {}
    for rows, slots, weights in sources:
        own = zip(slots.tolist(), weights.tolist(), strict=True)
        if isinstance(rows, Elsewhere):
            leaves = away.setdefault(rows.summing, [])
            leaves += [Leaf(slot, weight, rows, place) for place, (slot, weight) in enumerate(own)]
        else:
            here += [Term(s, row, weight) for row, (s, weight) in zip(rows, own, strict=True)]
    for summing, leaves in away.items():
        here += summing.sums(leaves, quanta)
    text = f"{len(here)} rows of updates arrived, of {sum(len(s.slots) for s in sources)}"
    size = sum(term.row.nbytes for term in here)
    event(log, logging.DEBUG, "gathered", text, rows=len(here), bytes=size)
    return here
