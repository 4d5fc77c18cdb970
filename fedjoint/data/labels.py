"""Cells of text -> the labels of a task."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.tasks import Task

Where = Callable[[int], str]  # position of an example -> file:line

#: column or file -> kind of task
Targets = dict[str, Literal["multiclass", "multilabel", "regression"]]


def read_labels(
    name: str, kind: str, cells: Sequence[str], where: Where, outputs: int | None = None
) -> tuple[Task, Tensor]:
    """Read the labels of one task. An empty cell is a missing label.

    A ``multiclass`` cell is a class from 0, or, where the first cell is no integer, any text:
    classes are then numbered in sorted order. A ``multilabel`` or ``regression`` cell has one or
    more numbers with spaces between; those of a multilabel task are 0 or 1.

    Args:
        name: of the task.
        kind: of the task.
        cells: ``n`` texts.
        where: names the file and line of a cell in errors.
        outputs: declared number of classes, labels or targets; None: as many as there are.

    Raises:
        UserError: a cell is malformed or disagrees with ``outputs``, no cell is filled, or no
            number of classes was declared and a class below the largest never occurs.
    """
    filled = [i for i, cell in enumerate(cells) if cell.strip()]
    if not filled:
        raise UserError(f"{where(0)}: task {name!r} has no labels; leave it out")
    if kind == "multiclass":
        return _classes(name, cells, filled, where, outputs)
    return _vectors(name, kind, cells, filled, where, outputs)


def class_names(cells: Sequence[str]) -> list[str] | None:
    """Return the names of the classes of a ``multiclass`` task by number; None: they have none."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return None if not filled or _is_integer(filled[0]) else sorted(set(filled))


def _classes(
    name: str, cells: Sequence[str], filled: list[int], where: Where, outputs: int | None
) -> tuple[Task, Tensor]:
    y = np.full(len(cells), -1, np.int64)
    if _is_integer(cells[filled[0]]):
        for i in filled:
            if not _is_integer(cells[i]) or int(cells[i]) < 0:
                raise UserError(f"{where(i)}: label {cells[i]!r} of {name!r} is not a class from 0")
            y[i] = int(cells[i])
    else:
        # Text classes are numbered after all are seen, so that the order of lines is no matter.
        y[filled] = np.unique([cells[i].strip() for i in filled], return_inverse=True)[1]
    classes = int(y.max()) + 1
    if outputs is None:
        absent = np.setdiff1d(np.arange(min(classes, len(cells) + 1)), y)
        if absent.size:
            raise UserError(
                f"{where(int(y.argmax()))}: {name!r} has class {classes - 1} but never class "
                f"{absent[0]}; number classes from 0, or declare data.outputs.{name}"
            )
    elif classes > outputs:
        first = int((y >= outputs).argmax())
        raise UserError(
            f"{where(first)}: label {cells[first]!r} of {name!r} is class {y[first]}, but "
            f"data.outputs.{name} = {outputs} allows 0 to {outputs - 1}"
        )
    return Task(name, "multiclass", outputs or classes), torch.from_numpy(y)


def _vectors(
    name: str,
    kind: str,
    cells: Sequence[str],
    filled: list[int],
    where: Where,
    outputs: int | None,
) -> tuple[Task, Tensor]:
    width = outputs or len(cells[filled[0]].split())
    y = np.full((len(cells), width), np.nan, np.float32)
    for i in filled:
        try:
            numbers = np.array(cells[i].split(), np.float32)
        except ValueError:
            raise UserError(f"{where(i)}: {cells[i]!r} of {name!r} is not a number") from None
        if len(numbers) != width:
            raise UserError(f"{where(i)}: {name!r} has {len(numbers)} numbers, expected {width}")
        if not np.isfinite(numbers).all():
            raise UserError(f"{where(i)}: {cells[i]!r} of {name!r} is not finite; leave it empty")
        if kind == "multilabel" and not np.isin(numbers, (0, 1)).all():
            raise UserError(f"{where(i)}: {cells[i]!r} of multilabel {name!r} is not all 0 and 1")
        y[i] = numbers
    return Task(name, kind, width), torch.from_numpy(y)


def _is_integer(cell: str) -> bool:
    # Stricter than int(), which takes 1_0, and never beyond int64.
    return re.fullmatch(r"-?[0-9]{1,18}", cell.strip(), re.ASCII) is not None
