"""Columns of lists -> labels of the tasks of sequences, maps, boxes and preferences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.cells import stacked
from fedjoint.data.label_arrays import labels_of
from fedjoint.errors import UserError
from fedjoint.model.tasks import KINDS, Task


def list_labels(
    name: str,
    kind: str,
    values: Sequence[Any],
    where: str,
    outputs: int | None = None,
    missing: Collection[str] | None = None,
) -> tuple[Task, Tensor]:
    """Return the labels of a task whose labels are lists, or lists of lists, of numbers.

    Args:
        name: of the task.
        kind: of the task.
        values: ``n`` of them; None is a missing one. Lists of tokens, and of boxes, may be of
            unequal length.
        where: the column, for errors.
        outputs: that were declared; None: as many as there are.
        missing: words that mean a missing label; of lists, those that are whole numbers.

    Raises:
        UserError: they are no such lists, or a label is wrong.
    """
    form = KINDS[kind]
    there = [value for value in values if value is not None]
    if not there:
        raise UserError(f"{where} has no labels; leave it out of data.source.options.targets")
    ragged = kind in ("tokens", "detection")
    if kind == "tokens":
        values = [_known(value) for value in values]
    filled = [([] if ragged else there[0]) if value is None else value for value in values]
    hint = f"labels of {kind} are lists of numbers, [{', '.join(map(str, form.dimensions))}]"
    array = stacked(filled, where, -1 if ragged else None, hint)
    if not form.whole:
        array = array.astype(np.float32)
    array[[value is None for value in values]] = -1 if form.whole else np.nan
    ignore = tuple(int(word) for word in missing or () if word.lstrip("-").isdecimal())
    return labels_of(where, name, kind, array, outputs, ignore)


def _known(labels: Any) -> Any:
    """Return a sequence's labels with -1 for those that are missing."""
    if not isinstance(labels, list):
        return labels
    return [-1 if label is None else label for label in labels]


def preferred(
    name: str, values: Sequence[Any], where: str, x: Tensor, outputs: int | None
) -> tuple[Task, Tensor]:
    """Return the labels of a task of items ``x`` ``[n, items, ...]``, None where nobody said.

    Raises:
        UserError: an input has no items, or a label is none of them.
    """
    if x.ndim < 3:
        raise UserError(
            f"{where}: a preference is for one of several items, and an input has the shape "
            f"{list(x.shape[1:])}: give lists of items"
        )
    array = np.array([-1 if value is None else value for value in values])
    if array.ndim != 1:
        raise UserError(f"{where}: labels of preference are the number of an item, from 0")
    return labels_of(where, name, "preference", array, outputs or x.shape[1])


def aligned(
    task: Task, y: Tensor, lengths: Sequence[int], labelled: Sequence[Any], x: Tensor, where: str
) -> tuple[Task, Tensor]:
    """Return labels of positions that are as long as the inputs.

    Args:
        task: of the labels.
        y: ``[n, longest]``.
        lengths: ``n``, of the inputs as they were given.
        labelled: ``n`` lists of labels as they were given.
        x: ``[n, length]`` inputs.
        where: the column, for errors.

    Raises:
        UserError: an input has more positions than labels, or fewer.
    """
    for row, (length, labels) in enumerate(zip(lengths, labelled, strict=True)):
        if labels is not None and len(labels) != length:
            raise UserError(
                f"{where} of row {row} has {len(labels)} labels, and its input {length} positions: "
                "give one for each"
            )
    found = torch.full(x.shape[:2], -1, dtype=torch.int64)
    kept = min(x.shape[1], y.shape[1])
    found[:, :kept] = y[:, :kept]
    return Task(task.name, task.kind, task.outputs, size=(x.shape[1],)), found


def following(
    name: str, x: Tensor, pad: int, where: str, outputs: int | None
) -> tuple[Task, Tensor]:
    """Return a language task: of each of the ids ``x`` ``[n, length]``, the one that follows.

    Args:
        name: of the task.
        x: ids; ``pad`` at their ends is padding.
        pad: the id.
        where: they come from, for errors.
        outputs: declared size of the vocabulary; None: as far as the ids go.

    Raises:
        UserError: an id is beyond ``outputs``.
    """
    places = torch.arange(x.shape[1])
    lengths = ((x != pad) * (places + 1)).amax(1, keepdim=True)
    y = x.roll(-1, 1).where(places < lengths - 1, -1)
    return labels_of(where, name, "language", y.numpy(), outputs or int(x.max()) + 1)
