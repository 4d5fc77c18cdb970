"""The data of a task that a run has not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fedjoint.config.data import DataConfig
from fedjoint.data.dataset import TRAIN, Dataset
from fedjoint.data.divide import divide
from fedjoint.data.source import Built, Source
from fedjoint.data.sources.text import Text
from fedjoint.errors import UserError, choose
from fedjoint.problem import Build


def built_for(task: str) -> Build:
    """Return what builds the clients of a source, without those that have no label of a task.

    The others keep their ids, and so their splits.

    Args:
        task: name of the task.
    """

    def build(source: Source, data: DataConfig, seed: int, ids: Sequence[int] | None) -> Built:
        if type(source).build is not Source.build:  # it generates examples for each client
            return source.build(data, seed, ids)
        dataset = source.load(data)
        if task not in dataset.task_names:
            raise _no_such_task(task, source, dataset.task_names)
        everyone = ids is None and data.task_mix == [[task]]
        if everyone and data.partition == "natural" and dataset.owner is not None:
            dataset, ids = _of_labelled(dataset, dataset.owner, task)
        return divide(dataset, data, seed, ids, source.mix, source.standardise)

    return build


def _no_such_task(task: str, source: Source, names: Sequence[str]) -> UserError:
    known = f"{choose('task', task, names)}, which is all that the data have"
    if isinstance(source, Text):
        option = f"path='{{ {task} = \"{task}.txt\" }}'"
    elif hasattr(source, "targets"):
        option = f"targets='{{ {task} = \"multiclass\" }}'"
    else:
        return UserError(known)
    return UserError(f"{known}; say where its labels are: --set data.source.options.{option}")


def _of_labelled(dataset: Dataset, owner: np.ndarray, task: str) -> tuple[Dataset, list[int]]:
    """Return the rows of those with a label of ``task`` to train on, and their ids.

    Raises:
        UserError: nobody has one.
    """
    trains = dataset.rows(TRAIN)
    known = dataset.known()[trains, dataset.task_names.index(task)]
    everyone, labelled = np.unique(owner[trains]), np.unique(owner[trains][known])
    if not labelled.size:
        raise UserError(f"task {task!r} has no training examples: give data that have some")
    kept = np.flatnonzero(np.isin(owner, labelled))
    own = replace(
        dataset,
        examples=dataset.examples.take(torch.from_numpy(kept)),
        origin=_rows(dataset.origin, kept),
        owner=owner[kept],
        strata=_rows(dataset.strata, kept),
        split=_rows(dataset.split, kept),
    )
    return own, np.flatnonzero(np.isin(everyone, labelled)).tolist()


def _rows(array: np.ndarray | None, kept: np.ndarray) -> np.ndarray | None:
    return None if array is None else array[kept]
