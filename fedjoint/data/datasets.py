"""Clients whose data are datasets of PyTorch or Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset

from fedjoint.config.data import DataConfig
from fedjoint.data.base import SPLITS, Client, Examples, Federation
from fedjoint.data.dataset import TEST, TRAIN, VALID, Dataset
from fedjoint.data.divide import divide
from fedjoint.data.items import Reading
from fedjoint.data.split import split_sizes
from fedjoint.errors import UserError
from fedjoint.model.ragged import filled
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, each, like, named
from fedjoint.randomness import Purpose, generator

Built = tuple[Sequence[Task], Federation, Input]


def divided(data: Any, reading: Reading, settings: DataConfig, seed: int, owner: str) -> Built:
    """Divide one dataset among clients, or a training, a validation and a test set.

    Args:
        data: a dataset, or a tuple of three; None in place of one that is not there.
        reading: how items are read.
        settings: how it is divided.
        seed: decides the partition and the splits.
        owner: column that says whose an item is, for ``partition = "natural"``; empty: none.

    Returns:
        The tasks that clients have, the clients, and ``[1, ...]`` an input.

    Raises:
        UserError: it is no dataset, or does not suffice for the clients.
    """
    who = "the data"
    sets = zip(_splits(data, who), (TRAIN, VALID, TEST), strict=True)
    parts, kinds = zip(*((part, kind) for part, kind in sets if len(part)), strict=True)
    whole: Any = ConcatDataset(parts) if len(parts) > 1 else parts[0]
    split = np.repeat(np.array(kinds), [len(part) for part in parts])
    dataset = Dataset(
        tuple(reading.tasks),
        reading.examples(whole, reading.tasks, who),
        owner=np.array([_owner(whole[at], owner) for at in range(len(whole))]) if owner else None,
        split=split if len(parts) > 1 else None,
    )
    tasks, clients, example = divide(dataset, settings, seed, None, lambda names: [names], False)
    _refuse_random(whole, who, reading)
    # What is in memory is as long as the longest already.
    return tasks, clients, _example([(whole, who)], reading) if reading.stream else example


def of_clients(data: Mapping[str, Any], reading: Reading, settings: DataConfig, seed: int) -> Built:
    """Return clients that bring a dataset each.

    Args:
        data: name of each client -> its dataset, which is split by the fractions of ``settings``,
            or a tuple of its training, validation and test set; None in place of one that is not
            there.
        reading: how items are read.
        settings: has the fractions.
        seed: decides the splits.

    Returns:
        The tasks, the clients, and ``[1, ...]`` an input.

    Raises:
        UserError: there is no client, what it brings is no dataset, or nobody has labels of a task.
    """
    clients = {}
    for number, (name, own) in enumerate(data.items()):
        parts = _splits(own, f"client {name!r}")
        if not isinstance(own, tuple):
            fractions = settings.valid_fraction, settings.test_fraction
            ends = np.cumsum(split_sizes(np.array(len(own)), *fractions))
            order = generator(seed, Purpose.SPLIT, number).permutation(len(own))
            parts = [Subset(own, at.tolist()) for at in np.split(order, ends[:-1])]
        clients[str(name)] = parts
    if not clients:
        raise UserError("there are no clients: give a dict of name -> dataset")
    federation = DatasetFederation(clients, reading)
    return reading.tasks, federation, federation.example


class DatasetFederation:
    """Clients that bring datasets, whose items are read when a client is asked for.

    A client has the tasks of which its first training item has a label, or None in its place.

    Args:
        clients: name -> training, validation and test set; one without items stands for none.
        reading: how items are read.

    Attributes:
        example: ``[1, ...]`` an input, as long as anybody's longest.

    Raises:
        UserError: nobody has an item, or labels of some task.
    """

    def __init__(self, clients: Mapping[str, Sequence[Any]], reading: Reading) -> None:
        self.task_names = tuple(task.name for task in reading.tasks)
        self._names, self._splits, self._reading = list(clients), list(clients.values()), reading
        self.sizes = np.array([len(splits[0]) for splits in self._splits], np.int64)
        self.tasks = np.array([self._has(place) for place in range(len(clients))])
        for name, had in zip(self.task_names, np.any(self.tasks, axis=0), strict=True):
            if not had:
                raise UserError(
                    f"no client has a label of task {name!r}: name its column in targets, or leave "
                    "the task out"
                )
        whole = [
            (part, self._who(place, split))
            for place, parts in enumerate(self._splits)
            for part, split in zip(parts, SPLITS, strict=True)
            if len(part)
        ]
        _refuse_random(*whole[0], reading)
        self.example = _example(whole, reading)

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        parts = zip(self._splits[index], SPLITS, strict=True)
        return Client(*(self._examples(part, index, split) for part, split in parts))

    def _examples(self, part: Any, index: int, split: str) -> Examples:
        has = zip(self._reading.tasks, list(self.tasks[index]), strict=True)
        tasks = [task for task, own in has if own]
        if len(part):
            return self._reading.examples(part, tasks, self._who(index, split))
        nothing = each(lambda x: x[:0], self.example)
        return Examples(nothing, {task.name: task.missing(0) for task in tasks})

    def _has(self, place: int) -> list[bool]:
        train = self._splits[place][0]
        found = self._reading.pairs(train, [0], self._who(place, "train")) if len(train) else []
        return [bool(found) and name in found[0][1] for name in self.task_names]

    def _who(self, place: int, split: str) -> str:
        return f"client {self._names[place]!r}, {split}"


def _splits(data: Any, who: str) -> list[Any]:
    """Return a training, a validation and a test set; one that is not there has no items."""
    parts = data if isinstance(data, tuple) else (data, None, None)
    if len(parts) != 3 or parts[0] is None:
        raise UserError(f"{who}: give a dataset, or (train, valid, test) with None for none")
    for part in parts:
        if part is None:
            continue
        if isinstance(part, Mapping):
            names = ", ".join(map(repr, part))
            raise UserError(f"{who} is a dict of {names}: give (train, valid, test), a tuple")
        if not hasattr(part, "__getitem__") or not hasattr(part, "__len__"):
            raise UserError(
                f"{who} is a {type(part).__name__}, without a length or items: give a dataset with "
                "__len__ and __getitem__"
            )
    if not len(parts[0]):
        raise UserError(f"{who} has no items to train on")
    return [[] if part is None else part for part in parts]


def _example(whole: Sequence[tuple[Any, str]], reading: Reading) -> Input:
    """Return ``[1, ...]`` the first input, as long as the longest of all."""
    dataset, who = whole[0]
    one = reading.read(dataset, [0], who)
    found = [reading.lengths(own, name) for own, name in whole]
    most = {name: max(lengths[name] for lengths in found) for name in found[0]}
    parts = {
        name: filled(x, most[name], reading.pad[name]) if name in most else x
        for name, x in named(one).items()
    }
    return like(parts, one)


def _refuse_random(dataset: Any, who: str, reading: Reading) -> None:
    """Refuse a dataset of which an item is another each time that it is read."""
    one, again = (reading.read(dataset, [0], who) for _ in range(2))
    if not all(torch.equal(x, named(again)[name]) for name, x in named(one).items()):
        raise UserError(
            f"{who}: an item is another each time that it is read: leave random transforms out of "
            "the dataset, and set local.augment"
        )


def _owner(item: Any, column: str) -> str:
    if not isinstance(item, Mapping) or column not in item:
        raise UserError(f"owner = {column!r}: items have no such column")
    return str(item[column])
