"""The data of a few clients with the same tasks, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import SPLITS, Client, Examples, Federation
from fedjoint.data.dataset import is_known
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.training.targets import Rules, Scale, own_scale, stacked


@dataclass(frozen=True)
class Stack:
    """One split of the clients' examples, padded to the longest.

    Every client has one row more than the longest: padding, whose labels are missing, so that
    a batch that is short points there and counts in no loss and no metric. Its inputs are the
    client's own, for a model need not be defined at zero.

    Attributes:
        x: ``[clients, rows, ...]`` inputs.
        y: task name -> ``[clients, rows, ...]`` labels.
        sizes: ``[clients]`` int64, examples of each client.
    """

    x: Tensor
    y: dict[str, Tensor]
    sizes: np.ndarray

    @cached_property
    def known(self) -> Tensor | None:
        """``[clients, rows, tasks]``, which labels are known; None where only padding has none."""
        known = torch.stack([is_known(labels) for labels in self.y.values()], 2)
        sizes = torch.from_numpy(self.sizes).to(known.device)
        own = torch.arange(known.shape[1], device=known.device) < sizes[:, None]
        return None if known[own].all() else known

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs and labels."""
        return self.x.nbytes + sum(labels.nbytes for labels in self.y.values())

    def shared(self, clients: int, tasks: Sequence[str]) -> Stack:
        """Return a stack of one client as if each of ``clients`` had it; memory is shared."""
        y = {name: self.y[name].expand(clients, *self.y[name].shape[1:]) for name in tasks}
        return Stack(self.x.expand(clients, *self.x.shape[1:]), y, self.sizes.repeat(clients))

    def examples(self, row: int) -> Examples:
        """Return the examples of one client, without the padding; memory is shared."""
        size = int(self.sizes[row])
        return Examples(self.x[row, :size], {n: labels[row, :size] for n, labels in self.y.items()})

    @property
    def alone(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The only client's inputs ``[1, examples, ...]`` and labels, without the padding."""
        (size,) = self.sizes.tolist()
        return self.x[:, :size], {name: labels[:, :size] for name, labels in self.y.items()}


@dataclass(frozen=True)
class Cohort:
    """Clients with the same tasks, in one place on one device.

    Attributes:
        clients: ``[clients]`` int64 ids.
        tasks: their tasks, in the order of the problem's.
        train, valid, test: their examples, targets in their own units.
        scales: task -> how its targets are scaled; a task that is not there is learnt as it is.
    """

    clients: np.ndarray
    tasks: tuple[Task, ...]
    train: Stack
    valid: Stack
    test: Stack
    scales: dict[str, Scale] = field(default_factory=dict)

    @cached_property
    def learnt(self) -> Stack:
        """The training examples with targets as they are learnt."""
        targets = {n: scale.learnt(self.train.y[n]) for n, scale in self.scales.items()}
        return replace(self.train, y={**self.train.y, **targets}) if targets else self.train

    def __len__(self) -> int:
        return len(self.clients)

    @property
    def nbytes(self) -> int:
        """Bytes of all examples."""
        scaled = sum(self.train.y[name].nbytes for name in self.scales)
        return self.train.nbytes + self.valid.nbytes + self.test.nbytes + scaled

    def client(self, row: int) -> Client:
        """Return the data of one client; memory is shared."""
        splits = (stack.examples(row) for stack in (self.train, self.valid, self.test))
        return Client(*splits)


def gather(
    data: Federation,
    tasks: Sequence[Task],
    example: Tensor,
    places: np.ndarray,
    clients: np.ndarray,
    known: Sequence[Client | None],
    device: torch.device,
    rules: Rules | None = None,
) -> Cohort:
    """Stack the data of clients that all have the same tasks.

    Args:
        data: of all clients.
        tasks: theirs.
        example: ``[1, ...]``, what their inputs must be like.
        places: ``[clients]``, their positions in ``data``.
        clients: ``[clients]``, their ids.
        known: their data, where it is on the device and checked already; else None.
        device: where to stack it.
        rules: what scales the tasks' targets, see :mod:`fedjoint.training.targets`.

    Raises:
        UserError: a client's inputs or labels are missing, do not fit the model or their task, or
            are not finite.
    """
    parts = []
    for place, client, own in zip(places.tolist(), clients.tolist(), known, strict=True):
        part = own or data.client(place)
        if own is None:
            for split in SPLITS:
                examples = getattr(part, split)
                check_inputs(examples.x, example, f"client {client}, {split} inputs")
                _check_labels(examples, tasks, f"client {client}")
        parts.append(part)
    scales = {
        name: stacked([rule or own_scale(part.train.y[name]) for part in parts], device)
        for name, rule in (rules or {}).items()
        if name in parts[0].train.y
    }
    return Cohort(
        clients,
        tuple(tasks),
        stack([part.train for part in parts], tasks, device),
        stack([part.valid for part in parts], tasks, device),
        stack([part.test for part in parts], tasks, device),
        scales,
    )


def everyones(
    examples: Examples, tasks: Sequence[Task], example: Tensor, device: torch.device
) -> Stack:
    """Return examples that all clients are measured on, as a stack of one client.

    Args:
        examples: with labels of all ``tasks``.
        tasks: the problem's.
        example: ``[1, ...]``, what inputs must be like.
        device: where to put them.

    Raises:
        UserError: inputs or labels do not fit the model or their task, or are not finite.
    """
    check_inputs(examples.x, example, "the central inputs")
    _check_labels(examples, tasks, "the central examples")
    return stack([examples], tasks, device)


def check_inputs(x: Tensor, like: Tensor, who: str) -> None:
    """Make sure that the model takes inputs, and that they are finite.

    Args:
        x: ``[n, ...]`` the inputs.
        like: ``[1, ...]`` one that it takes.
        who: has them, for the error.

    Raises:
        UserError: it does not, or one is not.
    """
    if x.dtype != like.dtype or x.shape[1:] != like.shape[1:]:
        raise UserError(
            f"{who} are {x.dtype} {list(x.shape[1:])}, and the model takes {like.dtype} "
            f"{list(like.shape[1:])}: give every client inputs of one type and shape"
        )
    if x.is_floating_point() and len(x) and not (finite := x.flatten(1).isfinite().all(1)).all():
        raise UserError(
            f"{who}: example {int(finite.int().argmin())} is not finite; clean its data"
        )


def _check_labels(examples: Examples, tasks: Sequence[Task], whose: str) -> None:
    for task in tasks:
        who = f"{whose}, task {task.name!r}"
        if task.name not in examples.y:
            raise UserError(f"{who}: no labels; its examples have those of {list(examples.y)}")
        y, like = examples.y[task.name], task.missing(0)
        shape = (len(examples), *like.shape[1:])
        if y.shape != shape or y.dtype != like.dtype:
            raise UserError(
                f"{who}: labels are {y.dtype} {list(y.shape)}, a {task.kind} task needs "
                f"{like.dtype} {list(shape)}"
            )
        if task.kind == "multiclass" and len(y) and not (y < task.outputs).all():
            raise UserError(
                f"{who}: class {int(y.max())} of {task.outputs}; number classes from 0, or raise "
                "the task's outputs"
            )
        if y.is_floating_point() and y.isinf().any():
            raise UserError(f"{who}: a label is infinite; a missing one is NaN")


def stack(parts: Sequence[Examples], tasks: Sequence[Task], device: torch.device) -> Stack:
    """Pad and stack ``parts``, one per client, on ``device``."""
    rows = max(len(part) for part in parts) + 1
    # What is on a device already is stacked there, everything else in memory.
    place = device if any(part.x.device.type != "cpu" for part in parts) else torch.device("cpu")
    x = parts[0].x.detach().new_zeros(len(parts), rows, *parts[0].x.shape[1:], device=place)
    y = {t.name: torch.stack([t.missing(rows)] * len(parts)).to(place) for t in tasks}
    for row, part in enumerate(parts):
        x[row, : len(part)] = part.x.detach()
        x[row, len(part) :] = part.x[0].detach() if len(part) else 0
        for name, labels in y.items():
            labels[row, : len(part)] = part.y[name].detach()
    sizes = np.array([len(part) for part in parts], np.int64)
    return Stack(_move(x, device), {n: _move(labels, device) for n, labels in y.items()}, sizes)


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    # Pinned memory lets the copy overlap with the kernels of the previous cohort.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
