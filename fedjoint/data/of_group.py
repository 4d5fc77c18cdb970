"""The clients of one group, under their own positions."""

from __future__ import annotations

import numpy as np

from fedjoint.data.base import Client, Federation


class OfGroup:
    """``data``, in which whoever is not in the group has no examples, and is never asked for any.

    Args:
        data: of all clients.
        member: ``[clients]`` bool, who is in the group.
    """

    def __init__(self, data: Federation, member: np.ndarray) -> None:
        self.task_names = data.task_names
        self.sizes = np.where(member, data.sizes, 0)
        self.tasks = data.tasks
        self._data = data

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        return self._data.client(index)
