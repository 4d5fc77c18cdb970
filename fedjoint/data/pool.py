"""Everyone's data in one place: the centralised reference, for simulations only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedjoint.data.base import Client, Examples, Federation
from fedjoint.data.loading import load_client
from fedjoint.model.stream import loaded
from fedjoint.model.tasks import Task
from fedjoint.model.tree import cat


class PooledFederation:
    """One client that holds ``data`` and has all of ``task_names``."""

    def __init__(self, task_names: tuple[str, ...], data: Client) -> None:
        self.task_names = task_names
        self.tasks = np.ones((1, len(task_names)), bool)
        self.sizes = np.array([len(data.train)], np.int64)
        self._data = data

    def client(self, index: int) -> Client:
        """Return the pooled data; ``index`` is 0."""
        return self._data


def pooled(federation: Federation, tasks: Sequence[Task]) -> Federation:
    """Return a federation of one client with everyone's training, validation and test examples.

    An example has labels for its own client's tasks; the others' are missing. Every client's
    examples are copied, so the memory for all of them is needed.

    Args:
        federation: the clients.
        tasks: the tasks of the federation, in order.
    """
    clients = [load_client(federation, index) for index in range(len(federation.sizes))]
    data = Client(
        _join([client.train for client in clients], tasks),
        _join([client.valid for client in clients], tasks),
        _join([client.test for client in clients], tasks),
    )
    return PooledFederation(federation.task_names, data)


def _join(parts: Sequence[Examples], tasks: Sequence[Task]) -> Examples:
    labels = {
        task.name: torch.cat([p.y.get(task.name, task.missing(len(p))) for p in parts])
        for task in tasks
    }
    return Examples(cat([loaded(part.x) for part in parts]), labels)
