"""The data of a few clients, stacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import SPLITS, Client, Examples, Federation
from fedjoint.errors import UserError
from fedjoint.model.positions import is_known
from fedjoint.model.stream import Stream, loaded
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, each, first, like, named, nbytes
from fedjoint.training.streams import Streams
from fedjoint.training.targets import Rules, Scale, own_scale, stacked

#: (inputs, whose they are) -> what the model takes, see :meth:`fedjoint.problem.Problem.fitted`
Fit = Callable[[Input | Stream, str], Input | Stream]


#: Bytes of minibatches that are copied at once: they stay in the processor's cache.
_AT_ONCE = 4 << 20


def _of_step(
    taken: dict[str, tuple[Tensor, ...]], step: int, clients: int, examples: int
) -> dict[str, Tensor]:
    """Return one step of several, of the first clients, the first examples of each."""
    return {name: parts[step][:clients, :examples] for name, parts in taken.items()}


@dataclass(frozen=True)
class Stack:
    """One split of the clients' examples, padded to the longest.

    Every client has one row more than the longest: padding, whose labels are missing, so that
    a batch that is short points there and counts in no loss and no metric. Its inputs are the
    client's own, for a model need not be defined at zero.

    Attributes:
        x: ``[clients, rows, ...]`` inputs, a tensor or a dict of them; or what reads them.
        y: task name -> ``[clients, rows, ...]`` labels.
        sizes: ``[clients]`` int64, examples of each client.
    """

    x: Input | Streams
    y: dict[str, Tensor]
    sizes: np.ndarray

    @cached_property
    def known(self) -> Tensor | None:
        """``[clients, rows, tasks]``, which labels are known; None where only padding has none."""
        form = next(iter(self.y.values())).shape[:2]
        known = torch.stack(
            [is_known(labels.flatten(0, 1)).view(form) for labels in self.y.values()], 2
        )
        sizes = torch.from_numpy(self.sizes).to(known.device)
        own = torch.arange(known.shape[1], device=known.device) < sizes[:, None]
        return None if known[own].all() else known

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs and labels that are in memory."""
        inputs = 0 if isinstance(self.x, Streams) else nbytes(self.x)
        return inputs + sum(labels.nbytes for labels in self.y.values())

    def shared(self, clients: int, tasks: Sequence[str]) -> Stack:
        """Return a stack of one client as if each of ``clients`` had it; memory is shared."""

        def expanded(tensor: Tensor) -> Tensor:
            return tensor.expand(clients, *tensor.shape[1:])

        y = {name: expanded(self.y[name]) for name in tasks}
        assert not isinstance(self.x, Streams), "what all are measured on is in memory"
        return Stack(each(expanded, self.x), y, self.sizes.repeat(clients))

    def examples(self, row: int, tasks: Iterable[str]) -> Examples:
        """Return one client's examples of its tasks, without the padding; memory is shared."""
        size = int(self.sizes[row])
        y = {name: self.y[name][row, :size] for name in tasks}
        if isinstance(self.x, Streams):
            return Examples(self.x.parts[row], y)
        return Examples(each(lambda tensor: tensor[row, :size], self.x), y)

    @property
    def rows(self) -> int:
        """Rows of every client, padding included."""
        return self.x.rows if isinstance(self.x, Streams) else first(self.x).shape[1]

    @property
    def alone(self) -> Stack:
        """The only client's examples, without the padding; memory is shared."""
        (size,) = self.sizes.tolist()
        y = {name: labels[:, :size] for name, labels in self.y.items()}
        if isinstance(self.x, Streams):
            return Stack(replace(self.x, rows=size), y, self.sizes)
        return Stack(each(lambda tensor: tensor[:, :size], self.x), y, self.sizes)

    def at(self, rows: slice) -> tuple[Input, dict[str, Tensor]]:
        """Return inputs and labels ``[clients, some rows, ...]``; of what is there, a view."""
        y = {name: labels[:, rows] for name, labels in self.y.items()}
        if isinstance(self.x, Streams):
            return self.x.at(rows), y
        return each(lambda tensor: tensor[:, rows], self.x), y

    def take(self, index: Tensor) -> tuple[Input, dict[str, Tensor]]:
        """Return copies of inputs and labels ``[clients, batch, ...]``.

        Args:
            index: ``[clients, batch]``, places among all clients' rows one below the other, which
                is faster than to select pairs. Of what is in memory, ``[steps, clients, batch]``.
        """

        def taken(stacked: Tensor) -> Tensor:
            found = stacked.flatten(0, 1).index_select(0, index.reshape(-1))
            return found.view(*index.shape, *stacked.shape[2:])

        y = {name: taken(labels) for name, labels in self.y.items()}
        return self.x.take(index) if isinstance(self.x, Streams) else each(taken, self.x), y

    def in_turn(
        self, index: Tensor, counts: Sequence[int], lengths: Sequence[int]
    ) -> Iterator[tuple[Input, dict[str, Tensor]]]:
        """Yield inputs and labels ``[clients, batch, ...]`` of every step, as :meth:`take`.

        Small ones of several steps are copied at once: a copy takes longer to start than to make.

        Args:
            index: ``[steps, clients, batch]``, as :meth:`take` has them.
            counts: ``[steps]``, how many clients each step is of: no more than the one before.
            lengths: ``[steps]``, how many examples of each of them.
        """
        rows, most = len(self.sizes) * self.rows, 1
        if not isinstance(self.x, Streams) and index.numel():
            most = max(1, _AT_ONCE * rows // max(1, self.nbytes * index[0].numel()))
        for start in range(0, len(index), most):
            few = index[start : start + most, : counts[start]]
            if most == 1:
                yield self.take(few[0, :, : lengths[start]])
                continue
            x, y = self.take(few)
            inputs = {name: part.unbind() for name, part in named(x).items()}
            labels = {name: part.unbind() for name, part in y.items()}
            for step in range(len(few)):
                form = counts[start + step], lengths[start + step]
                yield like(_of_step(inputs, step, *form), x), _of_step(labels, step, *form)


@dataclass(frozen=True)
class Cohort:
    """Clients in one place on one device.

    Attributes:
        clients: ``[clients]`` int64 ids.
        tasks: those that any of them has, in the order of the problem's.
        has: ``[clients, tasks]`` bool; of tasks that a client lacks, all its labels are missing.
        train, valid, test: their examples, targets in their own units.
        scales: task -> how its targets are scaled; a task that is not there is learnt as it is.
    """

    clients: np.ndarray
    tasks: tuple[Task, ...]
    has: np.ndarray
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

    def tasks_of(self, row: int) -> tuple[Task, ...]:
        """Return the tasks of one client."""
        return tuple(compress(self.tasks, self.has[row]))

    @cached_property
    def lacking(self) -> dict[str, Tensor]:
        """``[clients]`` bool, who lacks a task, by its name; of the tasks that somebody lacks."""
        pairs = zip(self.tasks, ~self.has.T, strict=True)
        return {
            task.name: torch.from_numpy(lacks).to(self.train.y[task.name].device)
            for task, lacks in pairs
            if lacks.any()
        }

    def names_of(self, row: int, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` of private state that one client has."""
        lacks = tuple(f"heads.{task.name}." for task in compress(self.tasks, ~self.has[row]))
        return [name for name in names if not name.startswith(lacks)]

    def client(self, row: int) -> Client:
        """Return the data of one client; memory is shared."""
        own = [task.name for task in self.tasks_of(row)]
        splits = (stack.examples(row, own) for stack in (self.train, self.valid, self.test))
        return Client(*splits)


def gather(
    data: Federation,
    tasks: Sequence[Task],
    fit: Fit,
    places: np.ndarray,
    clients: np.ndarray,
    known: Sequence[Client | None],
    device: torch.device,
    rules: Rules | None = None,
) -> Cohort:
    """Stack the data of clients.

    Args:
        data: of all clients.
        tasks: all that there are.
        fit: makes their inputs those that the model takes.
        places: ``[clients]``, their positions in ``data``.
        clients: ``[clients]``, their ids.
        known: their data, where it is on the device and checked already; else None.
        device: where to stack it.
        rules: what scales the tasks' targets, see :mod:`fedjoint.training.targets`.

    Raises:
        UserError: a client's inputs or labels are missing, do not fit the model or their task, or
            are not finite.
    """
    has = data.tasks[places]
    tasks, has = list(compress(tasks, has.any(0))), has[:, has.any(0)]
    parts = [
        own or _checked(data.client(place), list(compress(tasks, row)), fit, f"client {client}")
        for place, client, own, row in zip(places.tolist(), clients, known, has, strict=True)
    ]
    scales = {
        task.name: stacked(
            [rules[task.name] or own_scale(_labels(part, task)) for part in parts], device
        )
        for task in tasks
        if rules and task.name in rules
    }
    return Cohort(
        clients,
        tuple(tasks),
        has,
        stack([part.train for part in parts], tasks, device),
        stack([part.valid for part in parts], tasks, device),
        stack([part.test for part in parts], tasks, device),
        scales,
    )


def _checked(client: Client, tasks: Sequence[Task], fit: Fit, whose: str) -> Client:
    """Return a client's data as the model takes it, with labels of its tasks alone."""
    splits = []
    for split in SPLITS:
        examples = getattr(client, split)
        x = fit(examples.x, f"{whose}, {split} inputs")
        splits.append(_labelled(x, examples, tasks, whose))
    return Client(*splits)


def _labelled(x: Input | Stream, examples: Examples, tasks: Sequence[Task], whose: str) -> Examples:
    """Return inputs ``x`` with the labels that ``examples`` have of ``tasks``."""
    _check_labels(examples, tasks, whose)
    return Examples(x, {task.name: examples.y[task.name] for task in tasks})


def _labels(client: Client, task: Task) -> Tensor:
    """Return a client's labels of a task to learn from; none where it lacks the task."""
    return client.train.y.get(task.name, task.missing(0))


def everyones(examples: Examples, tasks: Sequence[Task], fit: Fit, device: torch.device) -> Stack:
    """Return examples that all clients are measured on, as a stack of one client.

    Args:
        examples: with labels of all ``tasks``.
        tasks: the problem's.
        fit: makes inputs those that the model takes.
        device: where to put them.

    Raises:
        UserError: inputs or labels do not fit the model or their task, or are not finite.
    """
    x = fit(loaded(examples.x), "the central inputs")
    return stack([_labelled(x, examples, tasks, "the central examples")], tasks, device)


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
        if (wrong := task.form.wrong(y, task.outputs)) is not None:
            raise UserError(f"{who}: {wrong}")


def stack(parts: Sequence[Examples], tasks: Sequence[Task], device: torch.device) -> Stack:
    """Pad and stack ``parts``, one per client, on ``device``."""
    rows = max(len(part) for part in parts) + 1
    streams = _streams(parts)
    # What is on a device already is stacked there, everything else in memory.
    labels = [tensor for part in parts for tensor in part.y.values()]
    there = any(tensor.device.type != "cpu" for tensor in labels)
    place = device if there else torch.device("cpu")

    def stacked(*tensors: Tensor) -> Tensor:
        x = tensors[0].detach().new_zeros(len(parts), rows, *tensors[0].shape[1:], device=place)
        for row, own in enumerate(tensors):
            x[row, : len(own)] = own.detach()
            x[row, len(own) :] = own[0].detach() if len(own) else 0
        return _move(x, device)

    inputs = [part.x for part in parts]
    x: Input | Streams = Streams(streams, rows, device) if streams else each(stacked, *inputs)
    y = {t.name: torch.stack([t.missing(rows)] * len(parts)).to(place) for t in tasks}
    for row, part in enumerate(parts):
        for name, own in part.y.items():
            y[name][row, : len(part)] = own.detach()
    sizes = np.array([len(part) for part in parts], np.int64)
    return Stack(x, {n: _move(own, device) for n, own in y.items()}, sizes)


def _streams(parts: Sequence[Examples]) -> list[Stream]:
    """Return what reads the inputs of each client; nothing where inputs are in memory.

    Raises:
        UserError: some are, others are not.
    """
    found = [part.x for part in parts if isinstance(part.x, Stream)]
    if found and any(len(part) and not isinstance(part.x, Stream) for part in parts):
        raise UserError("some clients stream their inputs, others do not: let all of them do so")
    nothing = [stream[torch.arange(0)] for stream in found[:1]]  # of a client without examples
    return [part.x if isinstance(part.x, Stream) else nothing[0] for part in parts] if found else []


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    # Pinned memory lets the copy overlap with the kernels of the previous cohort.
    return tensor.pin_memory().to(device, non_blocking=True)
