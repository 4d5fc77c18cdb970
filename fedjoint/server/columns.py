"""What is known of each row of updates, beside its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedjoint.server.part import Part


@dataclass(frozen=True)
class Columns:
    """What is known of each row that counts: of a client, or of some clients together.

    Attributes:
        keys: ``[rows]`` int64, ids of clients, or numbers of blocks.
        weights: ``[rows]`` float64, not normalised.
        counts: ``[rows]`` int64, how many clients are behind each.
        examples: ``[rows]`` int64, of all of them.
        steps: ``[rows]`` int64, alike.
        tasks: ``[rows, tasks]`` bool.
        received: ``[rows]`` int64, which backbone each received.
        rates: ``[rows]`` float32, factors on the learning rate; None: all one, or rows of blocks.
    """

    keys: np.ndarray
    weights: np.ndarray
    counts: np.ndarray
    examples: np.ndarray
    steps: np.ndarray
    tasks: np.ndarray
    received: np.ndarray
    rates: np.ndarray | None = None

    @property
    def mean_steps(self) -> np.ndarray:
        """``[rows]`` int64, optimiser steps of a client, on the mean."""
        return np.floor(self.steps / self.counts + 0.5).astype(np.int64)

    @property
    def shares(self) -> np.ndarray:
        """``[rows]`` float32, the weights, summing to one."""
        return (self.weights / self.weights.sum()).astype(np.float32)


def columns_of(part: Part) -> Columns:
    """Return what is known of the rows of a reply that count."""
    asked, good, reports = part.asked, part.good, part.reply.reports
    received = part.reply.received
    if received is None:
        received = np.zeros(len(good), np.int64)
    if not part.reduce:
        return Columns(
            keys=asked.clients[good],
            weights=asked.weights[good],
            counts=np.ones(int(good.sum()), np.int64),
            examples=reports.examples[good],
            steps=reports.steps[good],
            tasks=asked.tasks[good],
            received=received[good],
            rates=None if asked.rates is None else asked.rates[good],
        )
    kept = part.kept
    block = np.repeat(np.arange(len(kept)), asked.sizes)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(block, values * good, len(kept))[kept]

    first = np.cumsum(asked.sizes) - asked.sizes
    return Columns(
        keys=asked.blocks[kept],
        weights=sums(asked.weights),
        counts=sums(np.ones(len(good))).astype(np.int64),
        examples=sums(reports.examples).astype(np.int64),
        steps=sums(reports.steps).astype(np.int64),
        tasks=asked.tasks[first][kept],
        received=asked.backbones[asked.received[first]][kept]
        if asked.backbones is not None and asked.received is not None
        else np.zeros(int(kept.sum()), np.int64),
    )


def joined(columns: Sequence[Columns]) -> tuple[Columns, np.ndarray]:
    """Return the rows of all replies by client (or block), and ``[rows]`` what sorts them so."""
    keys = np.concatenate([column.keys for column in columns])
    received = np.concatenate([column.received for column in columns])
    order = np.lexsort((received, keys))  # a block has several rows where its backbones differ
    names = [n for n in Columns.__dataclass_fields__ if getattr(columns[0], n) is not None]
    found = {n: np.concatenate([getattr(c, n) for c in columns])[order] for n in names}
    return Columns(**found), order
