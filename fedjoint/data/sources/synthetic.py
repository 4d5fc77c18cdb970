"""Regression tasks that pull one backbone apart by a known angle, generated on demand.

Inputs are standard normal. Task ``k`` of ``K`` is ``y = w_k . x + noise``, where the unit vectors
``w_k`` lie in one plane, evenly from 0 to ``conflict_degrees``.

With fixed heads, the model outputs one function ``a . x`` (any linear backbone reaches it, and a
ReLU layer too) for every task, and the right answers are known. For clients' shares ``p_k``:

* task ``k`` alone is solved by ``w_k``, with a mean squared error of ``noise ** 2``;
* the joint optimum is ``m = sum_k p_k w_k``; task ``k`` then errs by ``|w_k - m| ** 2`` more;
* at ``a = 0`` the gradients of tasks ``j`` and ``k`` have the cosine ``w_j . w_k``.

So two equal tasks err by ``(1 - cos(angle)) / 2`` more: nothing at 0 degrees, where they agree,
and at 180 degrees, where they oppose, as much as if the backbone had learned nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedjoint._util.memory import check_fits
from fedjoint.config.data import DataConfig
from fedjoint.data.assign import task_matrix
from fedjoint.data.base import Client, Examples
from fedjoint.data.divide import check_tasks, task_mix
from fedjoint.data.source import Built, Source
from fedjoint.data.split import split_sizes, whole
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.options import Count, NotNegative
from fedjoint.randomness import Purpose, generator

_EXAMPLES = 46  # to train on; 64 with the usual shares for validation and test
_INPUT, _TARGET = 12, 24  # bytes of a number of either, as it is made in float64, and kept


class Synthetic(Source):
    """Regression tasks that conflict by a known angle, generated for each client.

    Args:
        tasks: number of tasks, named task0, task1, ...
        inputs: number of features.
        conflict_degrees: angle between the first and the last task.
        noise: standard deviation on y.
        learned_heads: linear heads, which can undo a conflict, in place of fixed ones.
    """

    generated = True

    def __init__(
        self,
        tasks: Count = 2,
        inputs: Annotated[int, Field(ge=2)] = 16,
        conflict_degrees: Annotated[float, Field(ge=0, le=180)] = 90.0,
        noise: NotNegative = 0.1,
        learned_heads: bool = False,
    ) -> None:
        self.tasks = tasks
        self.features = inputs
        self.conflict_degrees = conflict_degrees
        self.noise = noise
        self.learned_heads = learned_heads

    def build(self, data: DataConfig, seed: int, ids: Sequence[int] | None = None) -> Built:
        own = tasks(self)
        check_tasks(own, data)
        names = [task.name for task in own]
        examples = data.examples_per_client or _EXAMPLES
        check_fits(
            f"data.source.options.inputs = {self.features}, and tasks = {self.tasks}, of "
            f"{examples} examples",
            (_INPUT * float(self.features) + _TARGET * float(self.tasks)) * examples,
            "ask for fewer",
        )
        federation = SyntheticFederation(
            self,
            task_matrix(task_mix(data, names, self.mix), names, data.clients),
            examples=examples,
            seed=seed,
            valid_fraction=data.valid_fraction,
            test_fraction=data.test_fraction,
        )
        return list(own), federation, torch.zeros(1, self.features)

    def mix(self, names: Sequence[str]) -> Sequence[Sequence[str]]:
        return [[name] for name in names]


class FixedHead(nn.Module):
    """Even features' mean less odd features' mean, ``[n, features] -> [n, 1]``: nothing to learn.

    Raises:
        UserError: there are fewer than two features.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        if features < 2:
            raise UserError(
                "fixed heads need two features or more; widen the last layer of the backbone"
            )

    def forward(self, features: Tensor) -> Tensor:
        even, odd = features[..., 0::2], features[..., 1::2]
        return even.mean(-1, keepdim=True) - odd.mean(-1, keepdim=True)


def tasks(source: Synthetic) -> tuple[Task, ...]:
    """Return the tasks ``task0``, ``task1``, ..."""
    head = None if source.learned_heads else FixedHead
    # Targets are of unit size as they are made.
    return tuple(
        Task(f"task{k}", "regression", 1, head=head, scale="none") for k in range(source.tasks)
    )


def directions(source: Synthetic, seed: int) -> np.ndarray:
    """Return ``[tasks, inputs]`` float64, the unit vectors ``w_k``."""
    rng = generator(seed, Purpose.PROBLEM)
    plane = np.linalg.qr(rng.standard_normal((source.features, 2)))[0]
    angle = np.deg2rad(np.linspace(0, source.conflict_degrees, source.tasks))
    return np.stack([np.cos(angle), np.sin(angle)], 1) @ plane.T


class SyntheticFederation:
    """Any number of clients, each generated when asked for.

    Memory per client: ``sizes`` and ``tasks``.

    Args:
        source: the tasks.
        holds: ``[clients, tasks]`` bool, which client has which task.
        examples: training examples of each client.
        seed: decides the tasks and, with the client, its examples.
        valid_fraction: share of a client's examples.
        test_fraction: share of a client's examples.
    """

    def __init__(
        self,
        source: Synthetic,
        holds: np.ndarray,
        *,
        examples: int,
        seed: int,
        valid_fraction: float,
        test_fraction: float,
    ) -> None:
        self.task_names = tuple(task.name for task in tasks(source))
        self.tasks = holds
        total = whole(examples, valid_fraction, test_fraction)
        counts = split_sizes(np.array(total), valid_fraction, test_fraction)
        self._counts = [int(count) for count in counts]
        self.sizes = np.full(len(holds), self._counts[0], np.int64)
        self._directions = directions(source, seed)
        self._noise = source.noise
        self._seed = seed

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        rng = generator(self._seed, Purpose.EXAMPLES, index)
        own = np.flatnonzero(self.tasks[index])
        parts = []
        for count in self._counts:
            x = rng.standard_normal((count, self._directions.shape[1]))
            noise = self._noise * rng.standard_normal((count, len(self._directions)))
            y = torch.from_numpy(x @ self._directions.T + noise).float()
            labels = {self.task_names[k]: y[:, k : k + 1].clone() for k in own}
            parts.append(Examples(torch.from_numpy(x).float(), labels))
        return Client(*parts)
