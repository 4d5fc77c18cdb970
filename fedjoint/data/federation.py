"""Federations over one resident dataset: fixed parts, or draws on demand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedjoint.data.base import Client, Examples
from fedjoint.data.dataset import Dataset
from fedjoint.data.split import split, split_sizes, standardised
from fedjoint.errors import UserError
from fedjoint.randomness import Purpose, generator


class PartitionedFederation:
    """Clients are views on one dataset; each splits its own part by (seed, id).

    A client has a task if it is to hold it and one of its examples is labelled for it. A client
    without examples has size 0 and no task: it never trains.

    Args:
        dataset: all examples.
        parts: per client, the ``[m]`` int64 positions of its examples.
        holds: ``[clients, tasks]`` bool, which client is to have which task.
        seed: decides the splits.
        valid_fraction: share of a client's examples.
        test_fraction: share of a client's examples.
        standardise: scale features, see :func:`fedjoint.data.split.standardised`.
        ids: the clients' ids, where they are not 0, 1, ...

    Raises:
        UserError: there is no client, or a client has examples but no label of its tasks.
    """

    def __init__(
        self,
        dataset: Dataset,
        parts: Sequence[np.ndarray],
        holds: np.ndarray,
        *,
        seed: int,
        valid_fraction: float,
        test_fraction: float,
        standardise: bool = False,
        ids: Sequence[int] | None = None,
    ) -> None:
        if not len(parts):
            raise UserError("the federation has no clients; set data.clients to 1 or more")
        self.task_names = dataset.task_names
        known = dataset.known()
        self.tasks = holds & np.stack([known[part].any(0) for part in parts])
        counts = np.array([len(part) for part in parts], np.int64)
        idle = (counts > 0) & ~self.tasks.any(1)
        if idle.any():
            raise UserError(
                f"client {idle.argmax()} has {counts[idle.argmax()]} examples but no label of its "
                "tasks; change data.task_mix, or leave its rows out"
            )
        self.sizes = split_sizes(counts, valid_fraction, test_fraction)[0]
        self._examples = dataset.examples
        # One array and its bounds, rather than an array per client: cheap to send and to keep.
        self._order = np.concatenate(parts)
        self._bounds = np.concatenate([[0], np.cumsum(counts)])
        self._split = (valid_fraction, test_fraction)
        self._ids = range(len(parts)) if ids is None else ids
        self._seed = seed
        self._standardise = standardise

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        own = self._order[self._bounds[index] : self._bounds[index + 1]]
        parts = split(own, self._seed, self._ids[index], *self._split)
        names = _names(self.task_names, self.tasks[index])
        client = Client(*(_view(self._examples, names, part) for part in parts))
        return standardised(client) if self._standardise else client


class DrawnFederation:
    """Any number of clients, each of which draws its examples when asked for.

    The dataset is split once into training, validation and test examples; a client draws its own
    of each by (seed, client), without replacement. Two clients may draw the same example, but
    no training example of one is a test example of another. Memory per client: ``sizes`` and
    ``tasks``.

    Args:
        dataset: all examples.
        holds: ``[clients, tasks]`` bool, which client has which task; its examples are labelled
            for one or more of them.
        examples: examples of each client, splits together.
        seed: decides the split and the draws.
        valid_fraction: share of a client's examples.
        test_fraction: share of a client's examples.
        standardise: scale features, see :func:`fedjoint.data.split.standardised`.

    Raises:
        UserError: there is no client, or the dataset has fewer than ``examples`` for some client.
    """

    def __init__(
        self,
        dataset: Dataset,
        holds: np.ndarray,
        *,
        examples: int,
        seed: int,
        valid_fraction: float,
        test_fraction: float,
        standardise: bool = False,
    ) -> None:
        if not len(holds):
            raise UserError("the federation has no clients; set data.clients to 1 or more")
        self.task_names = dataset.task_names
        self.tasks = holds
        self._examples = dataset.examples
        self._seed = seed
        self._standardise = standardise
        counts = split_sizes(np.array(examples), valid_fraction, test_fraction)
        self._counts = [int(count) for count in counts]
        self.sizes = np.full(len(holds), self._counts[0], np.int64)
        known = dataset.known()
        everything = np.arange(len(known))
        splits = split(everything, seed, 0, valid_fraction, test_fraction)
        # Clients with the same tasks draw from the same positions.
        self._pools = {}
        for row in np.unique(holds, axis=0):
            pools = [part[known[part][:, row].any(1)] for part in splits]
            for pool, count in zip(pools, self._counts, strict=True):
                if len(pool) < count:
                    raise UserError(
                        f"a client with the tasks {', '.join(_names(self.task_names, row))} cannot "
                        f"draw {count} of {len(pool)} examples; lower data.examples_per_client"
                    )
            self._pools[row.tobytes()] = pools

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        row = self.tasks[index]
        rng = generator(self._seed, Purpose.EXAMPLES, index)
        names = _names(self.task_names, row)
        pools = zip(self._pools[row.tobytes()], self._counts, strict=True)
        parts = [rng.choice(pool, count, replace=False) for pool, count in pools]
        client = Client(*(_view(self._examples, names, part) for part in parts))
        return standardised(client) if self._standardise else client


def _names(names: Sequence[str], row: np.ndarray) -> list[str]:
    return [name for name, has in zip(names, row, strict=True) if has]


def _view(examples: Examples, names: Sequence[str], part: np.ndarray) -> Examples:
    own = Examples(examples.x, {name: examples.y[name] for name in names})
    return own.take(torch.from_numpy(part))
