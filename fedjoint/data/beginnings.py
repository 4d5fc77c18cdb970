"""The first examples of clients, for what is tried before a run."""

from __future__ import annotations

import numpy as np
import torch

from fedjoint.data.base import Client, Federation


class Beginnings:
    """A federation of which clients have their first training examples, and no others.

    Args:
        data: of the run.
        most: training examples of a client, at most.
    """

    def __init__(self, data: Federation, most: int) -> None:
        self.task_names, self.tasks = data.task_names, data.tasks
        self.sizes = np.minimum(data.sizes, most)
        self._data = data

    def client(self, index: int) -> Client:
        """Return the beginning of the data of client ``index``."""
        whole = self._data.client(index)
        none = torch.arange(0)
        train = whole.train.take(torch.arange(int(self.sizes[index])))
        return Client(train, whole.valid.take(none), whole.test.take(none))
