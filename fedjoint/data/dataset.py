"""All the examples of a source, before they are divided among clients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from fedjoint.data.base import Examples
from fedjoint.model.positions import is_known
from fedjoint.model.tasks import Task

#: splits, as ``Dataset.split`` has them
TRAIN, VALID, TEST = range(3)


@dataclass(frozen=True)
class Dataset:
    """Examples of one or more tasks.

    Attributes:
        tasks: the tasks, in order.
        examples: ``n`` examples with a label, or a missing one, for every task.
        origin: ``[n]`` int64; examples of one origin (say, a file) are divided together, among
            the clients with one of its tasks. None: all have one origin.
        owner: ``[n]`` client names, where the partition follows the data's own.
        strata: ``[n]`` int64, what skews the partition in place of a label.
        split: ``[n]`` of ``TRAIN``, ``VALID`` and ``TEST``, where the data has splits of its own.
            An origin without validation or test examples has them split off its training
            examples. None: so has every origin.
        legend: what the inputs and the classes of a task are called; part of the fingerprints
            of the clients' data, as a model is of no use under other names.
    """

    tasks: tuple[Task, ...]
    examples: Examples
    origin: np.ndarray | None = None
    owner: np.ndarray | None = None
    strata: np.ndarray | None = None
    split: np.ndarray | None = None
    legend: tuple[str, ...] = ()

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(task.name for task in self.tasks)

    def rows(self, split: int) -> np.ndarray:
        """Return ``[m]`` int64, the positions of a split that is the data's own.

        Args:
            split: ``TRAIN``, ``VALID`` or ``TEST``; where there are none, all examples train.
        """
        if self.split is None:
            return np.arange(len(self.examples) if split == TRAIN else 0)
        return np.flatnonzero(self.split == split)

    def known(self) -> np.ndarray:
        """Return ``[n, tasks]`` bool: which example is labelled for which task."""
        return np.stack([is_known(self.examples.y[name]).numpy() for name in self.task_names], 1)

    def only(self, names: Collection[str]) -> Dataset:
        """Return the same examples with the tasks in ``names`` alone."""
        tasks = tuple(task for task in self.tasks if task.name in names)
        labels = {task.name: self.examples.y[task.name] for task in tasks}
        return replace(self, tasks=tasks, examples=Examples(self.examples.x, labels))
