"""What every data source provides: examples, clients, and a federation of clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fedjoint.model.stream import Stream
from fedjoint.model.tree import Input, count, each


class Examples(NamedTuple):
    """Inputs and the labels of every task.

    Attributes:
        x: ``[n, ...]`` float32 features or int64 token ids, or a dict of several such tensors; or a
            :class:`fedjoint.Stream`, which reads them when they are needed.
        y: task name -> labels ``[n, ...]`` of the shape and type that its kind has, see
            :class:`fedjoint.Task`. What is missing of them is -1 (int64) or NaN (float32), and
            counts in no loss and no metric.
    """

    x: Input | Stream
    y: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.x) if isinstance(self.x, Stream) else count(self.x)

    def take(self, index: Tensor) -> Examples:
        """Return the examples at ``index`` (``[m]`` int64)."""
        return Examples(each(lambda x: x[index], self.x), {n: y[index] for n, y in self.y.items()})


#: What a client's examples are split into.
SPLITS = ("train", "valid", "test")

#: The split of a problem's examples on which every client is measured.
CENTRAL = "central"

#: Begins the names of the splits on which the shared backbone is measured beside clients' own.
SHARED = "shared_"


@dataclass(frozen=True)
class Client:
    """One data owner: its examples, split; ``y`` holds exactly the client's own tasks."""

    train: Examples
    valid: Examples
    test: Examples

    def without_examples(self) -> Client:
        """Return a client with neither examples nor tasks, whose inputs are of the same kind."""
        none = torch.arange(0)
        return Client(*(Examples(s.take(none).x, {}) for s in (self.train, self.valid, self.test)))


class Federation(Protocol):
    """A population of clients with their data; clients are made when asked for.

    Attributes:
        task_names: the tasks of the federation, in order.
        tasks: ``[clients, tasks]`` bool, which client has which task.
        sizes: ``[clients]`` int64, number of training examples (0: the client never trains).
    """

    task_names: tuple[str, ...]
    tasks: np.ndarray
    sizes: np.ndarray

    def client(self, index: int) -> Client:
        """Return the data of client ``index`` (0 <= index < len(sizes))."""
        ...
