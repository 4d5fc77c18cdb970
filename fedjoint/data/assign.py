"""Which client has which task, and which examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedjoint.config.data import DataConfig
from fedjoint.data import partition
from fedjoint.data.dataset import TRAIN, Dataset
from fedjoint.errors import choose


def task_matrix(mix: Sequence[Sequence[str]], names: Sequence[str], clients: int) -> np.ndarray:
    """Return ``[clients, tasks]`` bool: client ``i`` has the tasks ``mix[i % len(mix)]``.

    Raises:
        UserError: ``mix`` names an unknown task.
    """
    for name in (name for row in mix for name in row):
        if name not in names:
            raise choose("task in data.task_mix", name, names)
    rows = np.array([[name in row for name in names] for row in mix])
    return rows[np.arange(clients) % len(mix)]


def assign(
    dataset: Dataset, holds: np.ndarray, config: DataConfig, rng: np.random.Generator
) -> list[np.ndarray]:
    """Divide the examples of each origin among the clients with one of its tasks.

    Args:
        dataset: ``n`` examples.
        holds: ``[clients, tasks]`` bool, see :func:`task_matrix`.
        config: ``partition`` and its settings.
        rng: decides everything.

    Returns:
        One ``[m]`` int64 array of positions per client. Every training example of which a task is
        held is in exactly one.

    Raises:
        UserError: the examples do not suffice, or ``config.by`` is unknown.
    """
    known, trains = dataset.known(), dataset.rows(TRAIN)
    if dataset.owner is not None:
        parts_of = partition.natural(dataset.owner[trains], minimum=config.min_examples)
        return [trains[part] for part in parts_of]
    if dataset.strata is None and config.by not in (None, *dataset.task_names):
        raise choose("data.by", str(config.by), dataset.task_names)
    origin = np.zeros(len(known), np.int64) if dataset.origin is None else dataset.origin
    parts: list[list[np.ndarray]] = [[np.zeros(0, np.int64)] for _ in holds]
    for number in np.unique(origin):
        members = trains[origin[trains] == number]
        present = np.any(known[members], axis=0)
        holders = np.flatnonzero((holds & present).any(1))
        if not holders.size:
            continue
        divided = _divide(dataset, members, present, len(holders), config, rng)
        for client, positions in zip(holders, divided, strict=True):
            parts[client].append(members[positions])
    return [np.concatenate(own) for own in parts]


def _divide(
    dataset: Dataset,
    members: np.ndarray,
    present: np.ndarray,
    clients: int,
    config: DataConfig,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    minimum = config.min_examples
    if config.partition in ("iid", "one_task"):
        return partition.iid(len(members), clients, rng, minimum=minimum)
    if config.partition == "quantity":
        return partition.quantity(len(members), clients, rng, alpha=config.alpha, minimum=minimum)
    own = _strata(dataset, config.by, present)[members]
    if config.partition == "shards":
        return partition.shards(
            own, clients, rng, per_client=config.shards_per_client, minimum=minimum
        )
    return partition.dirichlet(own, clients, rng, alpha=config.alpha, minimum=minimum)


def strata(dataset: Dataset, config: DataConfig) -> np.ndarray:
    """Return ``[n]`` integers that skew the partition; all zero where nothing does.

    Args:
        dataset: ``n`` examples.
        config: ``partition`` and its settings.
    """
    found = np.zeros(len(dataset.examples), np.int64)
    if config.partition in ("dirichlet", "shards"):
        known = dataset.known()
        origin = found.copy() if dataset.origin is None else dataset.origin
        for number in np.unique(origin):
            members = origin == number
            present = np.any(known[members], axis=0)
            if present.any():
                found[members] = _strata(dataset, config.by, present)[members]
    return found


def _strata(dataset: Dataset, by: str | None, present: np.ndarray) -> np.ndarray:
    """Return ``[n]`` integers of which those of one origin count.

    A missing label is a stratum of its own. For which tasks there are labels is ``present``.
    """
    if dataset.strata is not None:
        return dataset.strata
    tasks = [task for task, here in zip(dataset.tasks, present, strict=True) if here]
    chosen = [task for task in tasks if task.name == by]
    chosen += [task for task in tasks if task.kind == "multiclass"]
    task = (chosen + tasks)[0]
    return task.form.strata(dataset.examples.y[task.name]).numpy()
