"""Minibatch order: a pure function of (seed, round, client), for many clients at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedjoint.randomness import Purpose, derive


@dataclass(frozen=True)
class Schedule:
    """Which examples each client uses at each step.

    Attributes:
        index: ``[steps, clients, batch]`` int64, positions in the client's training examples.
        mask: ``[steps, clients, batch]`` bool, false where a batch is short.
    """

    index: np.ndarray
    mask: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        """``[clients]`` steps that each client really takes."""
        return self.mask.any(2).sum(0)

    def packed(self, least: int = 1) -> tuple[Schedule, np.ndarray]:
        """Return the same steps without pauses, and ``[clients]`` whose they are.

        Every client takes its steps one after the other, in its order, and the clients with the
        most steps come first: who takes a step are the first of them.

        Args:
            least: leave out minibatches of fewer examples.
        """
        takes = self.mask.sum(2) >= least
        clients = np.argsort(-takes.sum(0), kind="stable")
        turns = np.argsort(~takes, axis=0, kind="stable")[: takes.sum(0).max(initial=0), clients]
        return Schedule(self.index[turns, clients], self.mask[turns, clients]), clients


def schedule(  # noqa: PLR0913 - what is drawn depends on all of them
    seed: int,
    round: int,
    clients: np.ndarray,
    sizes: np.ndarray,
    *,
    batch_size: int,
    epochs: int | None = None,
    steps: int | np.ndarray | None = None,
    drop_last: bool = False,
    padded: bool = False,
    stream: int = 0,
) -> Schedule:
    """Draw the minibatches of ``clients`` for one round.

    With ``epochs``, each epoch visits every example once, the last batch may be short (or is left
    out), and a client with fewer examples takes fewer steps. With ``steps``, every client takes
    that many full batches (of all its examples where it has fewer than ``batch_size``), shuffled
    anew each time it has seen all of them.

    Args:
        seed: the run's seed.
        round: the round.
        clients: ``[clients]`` ids.
        sizes: ``[clients]`` number of training examples; without any, a client takes no steps.
        batch_size: examples per step.
        epochs: passes over the data, or None.
        steps: optimiser steps, of all or ``[clients]`` of each, or None; exactly one of the two
            is given.
        drop_last: leave out an epoch's last batch where it has fewer than ``batch_size`` examples.
        padded: batches have room for ``batch_size`` examples though no client has so many.
        stream: another number gives another, independent order.
    """
    count, longest = len(clients), max(1, int(sizes.max()))
    used = sizes // batch_size * batch_size if drop_last else sizes
    position = np.arange(longest)
    if not padded:
        batch_size = min(batch_size, longest)  # beyond it there would be padding alone

    def shuffled(epoch: int) -> np.ndarray:
        drawn = derive(seed, Purpose.MINIBATCHES, stream, round, epoch, clients[:, None], position)
        # Positions past the end of a client's data sort last.
        return np.argsort(np.where(position < sizes[:, None], drawn, np.uint64(2**64 - 1)), axis=1)

    if steps is None:
        per_epoch = -(-max(1, int(used.max())) // batch_size)
        room = np.zeros((count, per_epoch * batch_size), np.int64)
        present = np.arange(per_epoch * batch_size) < used[:, None]
        indices = []
        for epoch in range(epochs or 0):
            order = shuffled(epoch)[:, : room.shape[1]]
            room[:, : order.shape[1]] = order
            indices.append(room.reshape(count, per_epoch, batch_size).copy())
        index = np.concatenate(indices, 1)
        mask = np.tile(present.reshape(count, per_epoch, batch_size), (1, epochs or 0, 1))
    else:
        own = np.maximum(sizes, 1)[:, None, None]
        batch = np.minimum(batch_size, own)
        slot = np.arange(batch_size)[None, None, :]
        turn = np.arange(int(np.max(steps)))[None, :, None]
        place = turn * batch + np.minimum(slot, batch - 1)
        passes = int((place // own).max()) + 1
        orders = np.stack([shuffled(epoch) for epoch in range(passes)], 1)
        which, within = np.divmod(place, own)
        index = orders[np.arange(count)[:, None, None], which, within]
        has = slot < np.minimum(batch, sizes[:, None, None])
        mask = np.broadcast_to(has & (turn < np.reshape(steps, (-1, 1, 1))), index.shape)
    mask = mask.transpose(1, 0, 2)
    return Schedule(np.where(mask, index.transpose(1, 0, 2), 0), np.ascontiguousarray(mask))
