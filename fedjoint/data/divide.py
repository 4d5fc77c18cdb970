"""All examples of a source -> the clients' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from fedjoint.config.data import DataConfig
from fedjoint.data.assign import assign, strata, task_matrix
from fedjoint.data.base import Federation
from fedjoint.data.dataset import TEST, TRAIN, VALID, Dataset
from fedjoint.data.federation import DrawnFederation, PartitionedFederation
from fedjoint.data.shares import Shares, share_by_owner, share_out
from fedjoint.data.split import Splitter
from fedjoint.errors import UserError, choose
from fedjoint.model.stream import loaded
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input
from fedjoint.randomness import Purpose, generator

Names = Sequence[str]


def divide(
    dataset: Dataset,
    data: DataConfig,
    seed: int,
    ids: Sequence[int] | None,
    mix: Callable[[Names], Sequence[Names]],
    standardise: bool,
) -> tuple[list[Task], Federation, Input]:
    """Divide a dataset among the clients, and leave out the tasks that none of them has.

    Args:
        dataset: all examples.
        data: how to divide them.
        seed: decides the partition and the splits.
        ids: the clients' ids, where the data is that of a few of the clients.
        mix: the tasks that clients have, in turn, unless ``data`` says otherwise; of all names.
        standardise: scale features, see :func:`fedjoint.data.split.standardised`.

    Returns:
        The tasks, the clients, and ``[1, ...]`` an input.

    Raises:
        UserError: the examples do not suffice for the clients, these are not as many as ``ids``,
            or ``data`` does not fit the dataset.
    """
    check_tasks(dataset.tasks, data)
    dataset = _of_owners(dataset, data)
    clients = data.clients if dataset.owner is None else len(_owners(dataset))
    if ids is not None and len(ids) != clients:
        raise UserError(f"the data has {clients} clients, but {len(ids)} client ids were given")
    names = dataset.task_names
    holds = task_matrix(task_mix(data, names, mix), names, clients)
    held = np.any(holds, axis=0)
    dataset = dataset.only([name for name, had in zip(names, held, strict=True) if had])
    clients_of = _federation(dataset, holds[:, held], data, seed, ids, standardise)
    return list(dataset.tasks), clients_of, loaded(dataset.examples.take(torch.arange(1)).x)


def task_mix(
    data: DataConfig, names: Names, mix: Callable[[Names], Sequence[Names]]
) -> Sequence[Names]:
    """Return the tasks that clients have, in turn; see :func:`divide` for the arguments."""
    if data.task_mix:
        return data.task_mix
    return [[name] for name in names] if data.partition == "one_task" else mix(names)


def check_tasks(tasks: Sequence[Task], data: DataConfig) -> None:
    """Refuse declarations that no task answers to.

    Raises:
        UserError: there is one.
    """
    names = [task.name for task in tasks]
    for name in data.outputs:
        if name not in names:
            raise choose("task in data.outputs", name, names)
    for task in tasks:
        if data.outputs.get(task.name, task.outputs) != task.outputs:
            raise UserError(f"task {task.name!r} has {task.outputs} outputs; fix data.outputs")


def _of_owners(dataset: Dataset, data: DataConfig) -> Dataset:
    """Return ``dataset`` with owners where the partition follows them, and only there."""
    if data.partition != "natural":
        return replace(dataset, owner=None)
    if dataset.owner is None:
        raise UserError(
            "data.partition = 'natural' needs data that says whose an example is: set "
            "data.source.options.client_column (csv and hub), or choose another partition"
        )
    return dataset


def _owners(dataset: Dataset) -> np.ndarray:
    """Return the sorted names of the clients.

    Raises:
        UserError: one has no training examples.
    """
    assert dataset.owner is not None, "the partition is natural"
    owners = np.unique(dataset.owner[dataset.rows(TRAIN)])
    strangers = np.setdiff1d(dataset.owner, owners)
    if strangers.size:
        raise UserError(
            f"client {str(strangers[0])!r} has test or validation examples, but none to train on; "
            "leave its rows out, or choose another data.partition"
        )
    return owners


def _federation(
    dataset: Dataset,
    holds: np.ndarray,
    data: DataConfig,
    seed: int,
    ids: Sequence[int] | None,
    standardise: bool,
) -> Federation:
    if not len(dataset.rows(TRAIN)):
        raise UserError("the data has no training examples: all are validation or test examples")
    fractions, most = (data.valid_fraction, data.test_fraction), data.examples_per_client
    own = [split for split in (VALID, TEST) if len(dataset.rows(split))]
    if data.partition in ("iid", "one_task") and most is not None:
        alike = np.zeros(len(dataset.examples), np.int64)
        return DrawnFederation(
            dataset,
            holds,
            examples=most,
            seed=seed,
            valid_fraction=fractions[0],
            test_fraction=fractions[1],
            shares={s: share_out(dataset, s, holds, seed, None, alike) for s in own},
            standardise=standardise,
        )
    parts = assign(dataset, holds, data, generator(seed, Purpose.PARTITION))
    known = dataset.known()
    # Without a label to train on, a client has no task to be tested on.
    has = holds & np.stack([known[part].any(0) for part in parts])

    def shares(split: int) -> Shares:
        if dataset.owner is not None:
            return share_by_owner(dataset, split, _owners(dataset))
        return share_out(dataset, split, has, seed, parts, strata(dataset, data))

    return PartitionedFederation(
        dataset,
        parts,
        holds,
        Splitter(dataset, seed, *fractions, most),
        shares={split: shares(split) for split in own},
        standardise=standardise,
        ids=ids,
    )
