"""Arrays -> the labels of a task of any kind."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.tasks import KINDS, Task


def labels_of(
    where: str,
    name: str,
    kind: str,
    array: np.ndarray,
    outputs: int | None = None,
    ignore: tuple[int, ...] = (),
) -> tuple[Task, Tensor]:
    """Return a task, of the size and the outputs that its labels have, and these.

    Args:
        where: they come from, for errors.
        name: of the task.
        kind: of the task.
        array: ``[n, ...]``, of the shape that :class:`fedjoint.Task` says; -1 and NaN are missing.
        outputs: that were declared; None: as many as there are.
        ignore: whole numbers that are missing labels, too.

    Raises:
        UserError: the array is of another type or shape, or a label is wrong.
    """
    form = KINDS[kind]
    if array.dtype.kind not in ("iu" if form.whole else "fiu"):
        what = "whole numbers" if form.whole else "numbers"
        raise UserError(f"{where} is {array.dtype.name}: labels of {kind} are {what}")
    y = torch.from_numpy(array.astype(np.int64 if form.whole else np.float32))
    if form.whole:
        for number in ignore:
            y[y == number] = -1
    wanted = form.dimensions
    if y.ndim != len(wanted) + 1 or any(
        isinstance(length, int) and length != has
        for length, has in zip(wanted, y.shape[1:], strict=True)
    ):
        shape = ", ".join(["n", *map(str, wanted)])
        raise UserError(f"{where} has the shape {list(y.shape)}: labels of {kind} are [{shape}]")
    size = tuple(y.shape[1 + wanted.index(part)] for part in form.size)
    task = Task(name, kind, outputs or form.outputs_in(y), size=size)
    if (wrong := form.wrong(y, task.outputs)) is not None:
        raise UserError(f"{where}: {wrong}")
    return task, y
