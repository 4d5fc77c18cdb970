"""The configuration's data -> tasks and clients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedjoint.data import digits, hub, idx, synthetic, tabular, text
from fedjoint.data.assign import assign, task_matrix
from fedjoint.data.base import Federation
from fedjoint.data.config import DataConfig
from fedjoint.data.dataset import Dataset
from fedjoint.data.federation import DrawnFederation, PartitionedFederation
from fedjoint.errors import UserError, choose
from fedjoint.model.tasks import Task
from fedjoint.randomness import Purpose, generator

_LOADERS = {
    "digits": lambda config: digits.load(),
    "text": text.load,
    "idx": idx.load,
    "csv": tabular.load,
    "hub": hub.load,
}
_GENERATED_EXAMPLES = 64


def build_data(
    config: DataConfig, seed: int, ids: Sequence[int] | None = None
) -> tuple[list[Task], Federation, Tensor]:
    """Build the tasks, the clients and one example input.

    Tasks that no client has are left out. The same ``config`` and ``seed`` give the same data.

    Args:
        config: the ``data`` table.
        seed: decides the partition, the splits and whatever is generated.
        ids: the clients' ids, where the data is that of a few of the clients.

    Returns:
        The tasks, the federation, and ``[1, ...]`` an input, to find the shapes of a model.

    Raises:
        UserError: the data is missing, malformed, or does not suffice for the clients, or they
            are not as many as ``ids``.
    """
    if config.source == "synthetic":
        return _synthetic(config, seed)
    dataset = _LOADERS[config.source](config)
    _check(dataset.tasks, config)
    clients = config.clients if dataset.owner is None else len(np.unique(dataset.owner))
    if ids is not None and len(ids) != clients:
        raise UserError(f"the data has {clients} clients, but {len(ids)} client ids were given")
    holds = task_matrix(_mix(config, dataset.task_names), dataset.task_names, clients)
    held = np.any(holds, axis=0)
    dataset = dataset.only(
        [task.name for task, had in zip(dataset.tasks, held, strict=True) if had]
    )
    holds = holds[:, held]
    return (
        list(dataset.tasks),
        _federation(dataset, holds, config, seed, ids),
        dataset.examples.x[:1],
    )


def _federation(
    dataset: Dataset,
    holds: np.ndarray,
    config: DataConfig,
    seed: int,
    ids: Sequence[int] | None,
) -> Federation:
    valid, test = config.valid_fraction, config.test_fraction
    standardise = config.source == "csv" and config.standardise
    most = config.examples_per_client
    if config.partition == "iid" and most is not None:
        return DrawnFederation(
            dataset,
            holds,
            examples=most,
            seed=seed,
            valid_fraction=valid,
            test_fraction=test,
            standardise=standardise,
        )
    parts = assign(dataset, holds, config, generator(seed, Purpose.PARTITION))
    return PartitionedFederation(
        dataset,
        [part[:most] for part in parts],
        holds,
        seed=seed,
        valid_fraction=valid,
        test_fraction=test,
        standardise=standardise,
        ids=ids,
    )


def _synthetic(config: DataConfig, seed: int) -> tuple[list[Task], Federation, Tensor]:
    tasks = synthetic.tasks(config.synthetic)
    _check(tasks, config)
    names = [task.name for task in tasks]
    federation = synthetic.SyntheticFederation(
        config.synthetic,
        task_matrix(_mix(config, names), names, config.clients),
        examples=config.examples_per_client or _GENERATED_EXAMPLES,
        seed=seed,
        valid_fraction=config.valid_fraction,
        test_fraction=config.test_fraction,
    )
    return list(tasks), federation, torch.zeros(1, config.synthetic.inputs)


def _mix(config: DataConfig, names: Sequence[str]) -> Sequence[Sequence[str]]:
    """Return the tasks that clients have, in turn."""
    if config.task_mix:
        return config.task_mix
    if config.partition == "one_task" or config.source == "synthetic":
        return [[name] for name in names]
    return digits.MIX if config.source == "digits" else [names]


def _check(tasks: Sequence[Task], config: DataConfig) -> None:
    """Refuse declarations that no task answers to, and names that no head can have."""
    names = [task.name for task in tasks]
    for name in config.outputs:
        if name not in names:
            raise choose("task in data.outputs", name, names)
    for task in tasks:
        if config.outputs.get(task.name, task.outputs) != task.outputs:
            raise UserError(f"task {task.name!r} has {task.outputs} outputs; fix data.outputs")
        if not task.name or "." in task.name or hasattr(nn.ModuleDict(), task.name):
            raise UserError(f"a task cannot be named {task.name!r}; rename its file or column")
