"""Federations over one resident dataset: fixed parts, or draws on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from fedjoint.data.base import Client, Examples
from fedjoint.data.dataset import TRAIN, Dataset
from fedjoint.data.shares import Shares
from fedjoint.data.split import Splitter, split_sizes, standardised, whole
from fedjoint.errors import UserError
from fedjoint.model.stream import loaded
from fedjoint.model.tree import cat
from fedjoint.randomness import Purpose, generator


class PartitionedFederation:
    """Clients are views on one dataset; each splits its own part by (seed, id).

    A client has a task if it is to hold it and one of its examples is labelled for it. A client
    without examples has size 0 and no task: it never trains.

    Args:
        dataset: all examples.
        parts: per client, the ``[m]`` int64 positions of its examples.
        holds: ``[clients, tasks]`` bool, which client is to have which task.
        splitter: splits a client's examples.
        shares: split -> who gets which examples of one that is the data's own.
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
        splitter: Splitter,
        *,
        shares: Mapping[int, Shares] | None = None,
        standardise: bool = False,
        ids: Sequence[int] | None = None,
    ) -> None:
        if not len(parts):
            raise UserError("the federation has no clients; set data.clients to 1 or more")
        self.task_names, self.legend = dataset.task_names, dataset.legend
        known = dataset.known()
        self.tasks = holds & np.stack([known[part].any(0) for part in parts])
        counts = np.array([len(part) for part in parts], np.int64)
        idle = (counts > 0) & ~self.tasks.any(1)
        if idle.any():
            raise UserError(
                f"client {idle.argmax()} has {counts[idle.argmax()]} examples but no label of its "
                "tasks; change data.task_mix, or leave its rows out"
            )
        self.sizes = np.array([splitter.size(part) for part in parts], np.int64)
        # Without what the partition alone needs: this travels to every worker.
        self._dataset = replace(dataset, owner=None, strata=None)
        self._splitter, self._shares = splitter, dict(shares or {})
        # One array and its bounds, rather than an array per client: cheap to send and to keep.
        self._order = np.concatenate(parts)
        self._bounds = np.concatenate([[0], np.cumsum(counts)])
        self._ids = range(len(parts)) if ids is None else ids
        self._standardise = standardise

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        own = self._order[self._bounds[index] : self._bounds[index + 1]]
        parts = self._splitter.split(own, self._ids[index])
        client = _client(self._dataset, parts, self._shares, index, self.tasks[index])
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
        examples: training examples of each client.
        seed: decides the split and the draws.
        valid_fraction: share of a client's examples.
        test_fraction: share of a client's examples.
        shares: split -> who gets which examples of one that is the data's own; they are divided,
            and not drawn.
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
        shares: Mapping[int, Shares] | None = None,
        standardise: bool = False,
    ) -> None:
        if not len(holds):
            raise UserError("the federation has no clients; set data.clients to 1 or more")
        self.task_names, self.legend = dataset.task_names, dataset.legend
        self.tasks = holds
        self._dataset = replace(dataset, owner=None, strata=None)
        self._shares = dict(shares or {})
        self._seed = seed
        self._standardise = standardise
        total = whole(examples, valid_fraction, test_fraction)
        counts = split_sizes(np.array(total), valid_fraction, test_fraction)
        self.sizes = np.full(len(holds), examples, np.int64)
        known = dataset.known()
        splitter = Splitter(dataset, seed, valid_fraction, test_fraction)
        splits = splitter.split(dataset.rows(TRAIN), 0)
        # Clients with the same tasks draw from the same positions.
        self._pools = {}
        for row in np.unique(holds, axis=0):
            names = ", ".join(_names(self.task_names, row))
            self._pools[row.tobytes()] = [
                self._pool(split, part[known[part][:, row].any(1)], int(count), names)
                for split, (part, count) in enumerate(zip(splits, counts, strict=True))
            ]

    def _pool(self, split: int, pool: np.ndarray, count: int, names: str) -> tuple[np.ndarray, int]:
        """Return what clients with the tasks ``names`` draw from, and how many."""
        if split in self._shares and not len(pool):
            return pool, 0
        if len(pool) < count:
            raise UserError(
                f"a client with the tasks {names} cannot draw {count} of {len(pool)} examples; "
                "lower data.examples_per_client"
            )
        return pool, count

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        row = self.tasks[index]
        rng = generator(self._seed, Purpose.EXAMPLES, index)
        pools = self._pools[row.tobytes()]
        parts = [rng.choice(pool, count, replace=False) for pool, count in pools]
        client = _client(self._dataset, parts, self._shares, index, row)
        return standardised(client) if self._standardise else client


def _client(
    dataset: Dataset,
    parts: Sequence[np.ndarray],
    shares: Mapping[int, Shares],
    index: int,
    row: np.ndarray,
) -> Client:
    """Return the data of client ``index``, which has the tasks of ``row``.

    Args:
        dataset: all examples.
        parts: positions of its training, validation and test examples.
        shares: what is divided beside them.
        index: the client.
        row: ``[tasks]`` bool.
    """
    names = _names(dataset.task_names, row)
    splits = [_view(dataset.examples, names, part) for part in parts]
    for split, share in shares.items():
        if row.any():
            more = share.of(index, np.flatnonzero(row).tolist(), dataset)
            splits[split] = _joined(splits[split], more)
    return Client(*splits)


def _names(names: Sequence[str], row: np.ndarray) -> list[str]:
    return [name for name, has in zip(names, row, strict=True) if has]


def _view(examples: Examples, names: Sequence[str], part: np.ndarray) -> Examples:
    own = Examples(examples.x, {name: examples.y[name] for name in names})
    return own.take(torch.from_numpy(part))


def _joined(first: Examples, second: Examples) -> Examples:
    y = {name: torch.cat([labels, second.y[name]]) for name, labels in first.y.items()}
    return Examples(cat([loaded(first.x), loaded(second.x)]), y)
