"""What a node says of itself, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from flwr.app import Message

from fedjoint._util.wording import plain
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.model.tasks import Task
from fedjoint.protocol import messages
from fedjoint.protocol.checks import MOST, counts, shaped

_PARAMETERS = 2**34  # most in a backbone
_NAME = 200  # characters of a name
_TASKS, _OUTPUTS = 10_000, 2**24


@dataclass(frozen=True)
class About:
    """A node, as it describes itself.

    Attributes:
        name: what people call it.
        device: that it trains on.
        movable: whether it can play any client.
        tasks: of its clients: name, kind and outputs.
        layout: of the shared tensors.
        ids: ``[n]`` int64 its clients, each once.
        sizes: ``[n]`` int64 their training examples.
        mask: ``[n, tasks]`` bool, who has which task.
        initial: the first backbone, by name; empty where it was not asked for.
    """

    name: str
    device: str
    movable: bool
    tasks: list[tuple[str, str, int]]
    layout: Layout
    ids: np.ndarray
    sizes: np.ndarray
    mask: np.ndarray
    initial: dict[str, np.ndarray] = field(repr=False)


def read(reply: Message, *, initial: bool) -> About:
    """Return what a node says of itself.

    Args:
        reply: to a query.
        initial: whether the first backbone was asked for.

    Raises:
        UserError: it cannot start, or part of the reply is missing or wrong.
    """
    if reply.has_error():
        raise UserError(reply.error.reason or "it cannot start")
    about = messages.settings(reply)
    layout = _layout(_get(about, "layout", dict), _get(about, "buffers", list))
    tasks = _tasks(_get(about, "tasks", list))
    population = messages.arrays(reply, "population")
    ids = population.get("ids", np.zeros(()))
    count = len(ids) if ids.ndim else 0
    ids = counts(population, "ids", count)
    if len(np.unique(ids)) < count:
        raise UserError("one of its clients has the id of another: give every client one id")
    mask = shaped(population, "mask", (count, len(tasks)), "b")
    backbone = messages.arrays(reply, "backbone") if initial else {}
    return About(
        name=plain(_get(about, "name", str))[:_NAME],
        device=plain(_get(about, "device", str))[:_NAME],
        movable=_get(about, "movable", bool),
        tasks=tasks,
        layout=layout,
        ids=ids,
        sizes=counts(population, "sizes", count),
        mask=mask,
        initial=_backbone(layout, backbone) if initial else {},
    )


def _get(about: Mapping[str, Any], name: str, kind: type) -> Any:
    value = about.get(name)
    if not isinstance(value, kind):
        raise UserError(f"damaged message: {name!r} is {value.__class__.__name__}")
    return value


def _layout(told: dict[str, Any], buffers: list[Any]) -> Layout:
    shapes = {}
    for name, shape in told.items():
        if not isinstance(shape, list) or not all(type(d) is int and 0 <= d < MOST for d in shape):
            raise UserError(f"damaged message: the shape of {plain(name)!r} in its layout")
        shapes[name] = tuple(shape)
    size = sum(prod(shape) for shape in shapes.values())
    if size > _PARAMETERS:
        raise UserError(f"its backbone has {size} parameters, more than {_PARAMETERS}")
    return Layout(shapes, tuple(buffers))


def _tasks(told: list[Any]) -> list[tuple[str, str, int]]:
    tasks = []
    for entry in told[:_TASKS]:
        if not isinstance(entry, list) or [type(part) for part in entry] != [str, str, int]:
            raise UserError("damaged message: a task is not [name, kind, outputs]")
        name, kind, outputs = entry
        if not name.isprintable() or len(name) > _NAME or outputs > _OUTPUTS:
            raise UserError(f"task {plain(name)!r} has a name or outputs beyond all measure")
        Task(name, kind, outputs)  # refuses a kind that there is not
        tasks.append((name, kind, outputs))
    if len({name for name, _, _ in tasks}) < len(told):
        raise UserError(f"it has a task twice, or more than {_TASKS}")
    return tasks


def _backbone(layout: Layout, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if found.keys() != layout.shapes.keys():
        raise UserError("damaged message: its backbone has other tensors than its layout")
    backbone = {}
    for name, shape in layout.shapes.items():
        backbone[name] = shaped(found, name, shape, "f").astype(np.float32, copy=False)
        if not np.isfinite(backbone[name]).all():
            raise UserError(f"{name!r} of its backbone is not finite")
    return backbone
