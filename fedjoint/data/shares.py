"""A test (or validation) set that the data itself has, divided among the clients.

Every task's whole set is used, and each of its examples by one client: so the pooled test metric
is the metric on exactly that set, and compares with what others report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.randomness import Purpose, generator


@dataclass(frozen=True)
class Shares:
    """Which client is tested on which examples.

    Attributes:
        order: per task, ``[m]`` int64 positions, those of one client after those of another.
        bounds: per task, ``[clients + 1]`` int64, where those of a client begin and end.
    """

    order: tuple[np.ndarray, ...]
    bounds: tuple[np.ndarray, ...]

    def of(self, client: int, tasks: Sequence[int], dataset: Dataset) -> Examples:
        """Return a client's examples, with labels for those tasks whose share they are in.

        Args:
            client: which.
            tasks: numbers of its tasks.
            dataset: all examples.
        """
        own = [self.order[k][slice(*self.bounds[k][client : client + 2])] for k in tasks]
        everything = np.unique(np.concatenate(own))
        at = torch.from_numpy(everything)
        y = {}
        for k, part in zip(tasks, own, strict=True):
            task = dataset.tasks[k]
            labels = dataset.examples.y[task.name][at]
            absent = torch.from_numpy(~np.isin(everything, part))
            labels[absent] = task.missing(int(absent.sum()))
            y[task.name] = labels
        return Examples(dataset.examples.take(at).x, y)


def share_out(
    dataset: Dataset,
    split: int,
    holds: np.ndarray,
    seed: int,
    parts: Sequence[np.ndarray] | None,
    strata: np.ndarray,
) -> Shares:
    """Divide a split of the data's own among the clients with each task.

    A client gets of every stratum the share that it has of the stratum's training examples, so
    that it is tested on the likes of what it trains on.

    Args:
        dataset: all examples.
        split: ``VALID`` or ``TEST``.
        holds: ``[clients, tasks]`` bool, which client has which task.
        seed: decides who gets which.
        parts: per client, the positions of its training examples; None: all have alike.
        strata: ``[n]`` integers.
    """
    known, rows = dataset.known(), dataset.rows(split)
    trains = np.full(len(known), -1)  # which client trains on an example
    for client, part in enumerate(parts or ()):
        trains[part] = client
    shares = []
    for task, has in enumerate(holds.T):
        own, learnt = rows[known[rows, task]], (trains >= 0) & known[:, task]
        # For every task anew: tasks of the same examples and clients are divided alike.
        rng = generator(seed, Purpose.OFFICIAL, split)
        members, clients = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for stratum in np.unique(strata[own]):
            learners = trains[learnt & (strata == stratum)]
            weights = has * np.bincount(learners, minlength=len(has))
            ends = np.cumsum(weights if weights.any() else has)
            members.append(rng.permutation(own[strata[own] == stratum]))
            ends = np.rint(ends / ends[-1] * len(members[-1]))
            clients.append(np.searchsorted(ends, np.arange(len(members[-1])), side="right"))
        shares.append((np.concatenate(members), np.concatenate(clients)))
    return _shares(shares, len(holds))


def share_by_owner(dataset: Dataset, split: int, owners: np.ndarray) -> Shares:
    """Give every client the examples of the split that are its own.

    Args:
        dataset: all examples; it says whose they are.
        split: ``VALID`` or ``TEST``.
        owners: ``[clients]`` their names, sorted.
    """
    assert dataset.owner is not None, "the caller knows"
    known, rows = dataset.known(), dataset.rows(split)
    each = [rows[known[rows, task]] for task in range(len(dataset.tasks))]
    return _shares(
        [(own, np.searchsorted(owners, dataset.owner[own])) for own in each], len(owners)
    )


def _shares(each: Sequence[tuple[np.ndarray, np.ndarray]], clients: int) -> Shares:
    """Sort every task's examples by the clients that they go to."""
    return Shares(
        tuple(own[np.argsort(who, kind="stable")] for own, who in each),
        tuple(np.cumsum([0, *np.bincount(who, minlength=clients)]) for _, who in each),
    )
