"""Clients of unequal size, with examples that a function makes."""

import numpy as np
import torch

from fedjoint import Client, Examples

#: training examples of each client
SIZES = (7, 12, 5, 9)


class Unequal:
    """Clients whose examples ``make(count, rng)`` draws, with labels of ``tasks`` alone."""

    def __init__(self, tasks, make, seed):
        self.task_names = tuple(task.name for task in tasks)
        self.sizes = np.array(SIZES, np.int64)
        self.tasks = np.ones((len(SIZES), len(tasks)), bool)
        self._make, self._seed = make, seed

    def client(self, index):
        rng = torch.Generator().manual_seed(1000 * self._seed + index)
        counts = (SIZES[index], 4, 6)
        return Client(*(self._own(self._make(count, rng)) for count in counts))

    def _own(self, examples):
        return Examples(examples.x, {name: examples.y[name] for name in self.task_names})
