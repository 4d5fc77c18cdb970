"""What a node says of itself: the reply to a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from fedjoint._util.wording import plain
from fedjoint.errors import UserError
from fedjoint.model.frozen import digest
from fedjoint.model.layout import Layout
from fedjoint.model.tasks import Task
from fedjoint.protocol import wire
from fedjoint.protocol.arrays import to_tensor
from fedjoint.protocol.checks import Name, Number, counts, shaped

_PARAMETERS = 2**34  # most in a backbone
_NAME = 200  # characters of a tensor's name
_LARGEST = 1e6  # most that a number of the first backbone can be: training begins near zero
_TASKS, _OUTPUTS, _GROUPS, _COLUMNS = 10_000, 2**24, 1_000, 100_000
MOST_EXAMPLES = 2**32  # of a client


@dataclass(frozen=True)
class Architecture:
    """What clients of one group train, as a node has it.

    Attributes:
        layout: of the shared tensors.
        initial: the first backbone, by name; empty where it was not asked for.
        digest: of what does not train of the backbone, see :mod:`fedjoint.model.frozen`.
        frozen: that itself, by name; empty where the first backbone was not asked for.
    """

    layout: Layout
    initial: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    digest: str = ""
    frozen: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Description:
    """A node, as it describes itself.

    Attributes:
        name: what people call it.
        device: that it trains on.
        movable: whether it can play any client.
        tasks: of its clients, without losses, heads and metrics of their own.
        groups: what its clients train, by the name of their group; of one architecture for all
            clients of the run, the name is empty.
        ids: ``[n]`` int64 its clients, each once.
        sizes: ``[n]`` int64 their training examples.
        held: ``[n, 3]`` int64 their validation, test and central examples; ``[0, 3]`` where the
            node can play any client.
        mask: ``[n, tasks]`` bool, who has which task.
        member: ``[n]`` int64, the place of each client's group in ``groups``.
        columns: names of the inputs, where its data has any.
        classes: task -> digest of the names of its classes, where they are numbered by name.
        metrics: task -> names of its metrics.
    """

    name: str
    device: str
    movable: bool
    tasks: list[Task]
    groups: Mapping[str, Architecture]
    ids: np.ndarray
    sizes: np.ndarray
    mask: np.ndarray
    member: np.ndarray
    held: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    columns: Sequence[str] = ()
    classes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        said = {
            "name": self.name,
            "device": self.device,
            "movable": self.movable,
            "tasks": [(t.name, t.kind, t.outputs, t.size) for t in self.tasks],
            "groups": [_said(name, group) for name, group in self.groups.items()],
            "columns": list(self.columns),
            "classes": dict(self.classes),
            "metrics": dict(self.metrics),
        }
        population = {n: getattr(self, n) for n in ("ids", "sizes", "mask", "held", "member")}
        return wire.pack(
            said,
            population=population,
            backbone=_joined({name: group.initial for name, group in self.groups.items()}),
            frozen=_joined({name: group.frozen for name, group in self.groups.items()}),
        )

    @classmethod
    def unpack(cls, reply: Message, *, initial: bool) -> Description:
        """Return what a node says of itself.

        Args:
            reply: to a query.
            initial: whether the first backbone was asked for.

        Raises:
            UserError: it cannot start, or part of the reply is missing or wrong.
        """
        if reply.has_error():
            raise UserError(reply.error.reason or "it cannot start")
        said = wire.read(_Said, reply)
        tasks, groups = _tasks(said.tasks), _groups(reply, said.groups, initial=initial)
        population = wire.arrays(reply, "population")
        ids = counts(population, "ids", len(np.atleast_1d(population.get("ids", ()))))
        if len(np.unique(ids)) < len(ids):
            raise UserError("one of its clients has the id of another: give every client one id")
        member = counts(population, "member", len(ids))
        if (member >= len(groups)).any():
            raise UserError("damaged message: a client is in a group that it does not name")
        return cls(
            name=plain(said.name),
            device=plain(said.device),
            movable=said.movable,
            tasks=tasks,
            groups=groups,
            ids=ids,
            sizes=counts(population, "sizes", len(ids), MOST_EXAMPLES),
            held=_held(population, len(ids)),
            mask=shaped(population, "mask", (len(ids), len(tasks)), "b"),
            member=member,
            columns=[plain(name)[:_NAME] for name in said.columns[:_COLUMNS]],
            classes={t.name: said.classes[t.name] for t in tasks if t.name in said.classes},
            metrics={t.name: said.metrics[t.name] for t in tasks if t.name in said.metrics},
        )


#: name, kind, outputs and size
_Task = tuple[Name, Name, Number, tuple[Number, ...]]


@dataclass(frozen=True)
class _Group:
    name: Name
    layout: dict[Name, tuple[Number, ...]]
    buffers: tuple[Name, ...]
    digest: Name


@dataclass(frozen=True)
class _Said:
    name: Name
    device: Name
    movable: bool
    tasks: tuple[_Task, ...]
    groups: tuple[_Group, ...]
    columns: tuple[str, ...]
    classes: dict[Name, Name]
    metrics: dict[Name, tuple[Name, ...]]


def _said(name: str, group: Architecture) -> dict[str, Any]:
    return {
        "name": name,
        "layout": {tensor: list(shape) for tensor, shape in group.layout.shapes.items()},
        "buffers": group.layout.buffers,
        "digest": group.digest,
    }


def _joined(of: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of all groups in one record."""
    return {_start(group) + n: array for group, arrays in of.items() for n, array in arrays.items()}


def _start(group: str) -> str:
    return f"{group}/" if group else ""


def _own(arrays: Mapping[str, np.ndarray], group: str) -> dict[str, np.ndarray]:
    """Return those of one group."""
    start = _start(group)
    return {n.removeprefix(start): array for n, array in arrays.items() if n.startswith(start)}


def _groups(reply: Message, said: tuple[_Group, ...], *, initial: bool) -> dict[str, Architecture]:
    if not 0 < len(said) <= _GROUPS or len({group.name for group in said}) < len(said):
        raise UserError(f"it has a group twice, none, or more than {_GROUPS}")
    backbone, frozen = (wire.arrays(reply, n) if initial else {} for n in ("backbone", "frozen"))
    names = {group.name for group in said}
    for name in names:
        if not name.isprintable() or "/" in name:
            raise UserError(f"a group has the name {plain(name)!r}")
    if "" in names and len(names) > 1:
        raise UserError("it has groups beside clients of one architecture")
    starts = tuple(_start(name) for name in names)
    if not all(array.startswith(starts) for array in (*backbone, *frozen)):
        raise UserError("damaged message: it has other tensors than its groups")
    groups = {}
    for group in said:
        layout = _layout(group.layout, group.buffers)
        groups[group.name] = Architecture(
            layout=layout,
            initial=_backbone(layout, _own(backbone, group.name)) if initial else {},
            digest=group.digest,
            frozen=_frozen(layout, _own(frozen, group.name), group.digest) if initial else {},
        )
    return groups


def _layout(shapes: dict[str, tuple[int, ...]], buffers: tuple[str, ...]) -> Layout:
    size = sum(prod(shape) for shape in shapes.values())
    if size > _PARAMETERS:
        raise UserError(f"its backbone has {size} parameters, more than {_PARAMETERS}")
    return Layout(shapes, buffers)


def _tasks(said: tuple[_Task, ...]) -> list[Task]:
    tasks = []
    for name, kind, outputs, size in said[:_TASKS]:
        if not name.isprintable() or outputs * prod(size) > _OUTPUTS:
            raise UserError(f"task {plain(name)!r} has a name or outputs beyond all measure")
        tasks.append(Task(name, kind, outputs, size=size))  # refuses a kind that there is not
    if len({task.name for task in tasks}) < len(said):
        raise UserError(f"it has a task twice, or more than {_TASKS}")
    return tasks


def _held(population: Mapping[str, np.ndarray], clients: int) -> np.ndarray:
    rows = clients if population.get("held", np.zeros(0)).size else 0
    found = shaped(population, "held", (rows, 3), "iu")
    return counts({"held": found.reshape(-1)}, "held", found.size, MOST_EXAMPLES).reshape(rows, 3)


def _backbone(layout: Layout, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if found.keys() != layout.shapes.keys():
        raise UserError("damaged message: its backbone has other tensors than its layout")
    backbone = {}
    for name, shape in layout.shapes.items():
        backbone[name] = shaped(found, name, shape, "f").astype(np.float32, copy=False)
        if not np.isfinite(backbone[name]).all():
            raise UserError(f"{name!r} of its backbone is not finite")
        if np.abs(backbone[name]).max(initial=0) > _LARGEST:
            raise UserError(f"{name!r} of its backbone has numbers above {_LARGEST:g}")
    return backbone


def _frozen(layout: Layout, found: Mapping[str, np.ndarray], said: str) -> Mapping[str, np.ndarray]:
    if not all(n.isprintable() and len(n) <= _NAME for n in found):
        raise UserError("damaged message: a name is beyond all measure")
    if not layout.shapes.keys().isdisjoint(found):
        raise UserError("damaged message: a tensor of its backbone both trains and does not")
    kinds = {array.dtype.kind for array in found.values()}
    if not kinds <= set("fiub") or digest({n: to_tensor(a) for n, a in found.items()}) != said:
        raise UserError("damaged message: its frozen tensors are not those of its digest")
    return found
