"""Values of a dataset's items (numbers, lists, arrays, tensors) -> tensors of several items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.tasks import Task
from fedjoint.model.tree import kind_of

_USUAL = {torch.float64: torch.float32, torch.float16: torch.float32}
_USUAL |= dict.fromkeys((torch.int8, torch.int16, torch.int32), torch.int64)


def column(values: Sequence[Any], pad: float | None, what: str) -> Tensor:
    """Return ``[n, ...]`` the values of ``n`` items.

    Args:
        values: one of each item.
        pad: fills up those that are shorter than the longest; None: all have one shape.
        what: what they are, for messages.

    Raises:
        UserError: one is no numbers, or of another type or shape than the first.
    """
    tensors = [to_tensor(value, what) for value in values]
    first = tensors[0]
    for other in tensors:
        ragged = pad is not None and other.ndim and other.shape[1:] == first.shape[1:]
        if other.dtype != first.dtype or not (ragged or other.shape == first.shape):
            raise UserError(
                f"{what} is {first.dtype} {tuple(first.shape)} of one item and {other.dtype} "
                f"{tuple(other.shape)} of another: give one type and shape, or set pad where "
                "lengths differ"
            )
    if pad is None:
        return torch.stack(tensors)
    return pad_sequence(tensors, batch_first=True, padding_value=pad)


def labels(values: Sequence[Any], task: Task, what: str) -> Tensor:
    """Return ``[n, ...]`` labels of a task.

    Args:
        values: one of each item; None, or NaN, is a missing one.
        task: the task.
        what: what they are, for messages.

    Raises:
        UserError: one is not what the task needs.
    """
    (missing,) = task.missing(1)
    rows = []
    for value in values:
        row = missing if value is None else to_tensor(value, what)
        if row.numel() == missing.numel() == 1:
            row = row.reshape(missing.shape)
        if row.shape != missing.shape:
            raise UserError(
                f"{what} is of shape {tuple(row.shape)}, and a {task.kind} task needs "
                f"{tuple(missing.shape)}"
            )
        if row.is_floating_point() and not missing.is_floating_point():
            row = torch.where(row.isnan(), missing, row)
            if (row != row.round()).any():
                raise UserError(f"{what} is {value}: classes are whole numbers from 0")
        rows.append(row.to(missing.dtype))
    return torch.stack(rows) if rows else task.missing(0)


def to_tensor(value: Any, what: str) -> Tensor:
    """Return a number, a list, an array or a tensor as a tensor of a usual type.

    Raises:
        UserError: it holds no numbers.
    """
    if not isinstance(value, Tensor):
        try:
            array = np.array(value)
        except ANYTHING as error:  # lists of unequal lengths within a list
            raise UserError(f"{what}: {said(error)}") from error
        if array.dtype.kind not in "buif":
            raise UserError(f"{what} is {kind_of(value)}: make numbers of it, as a tokeniser does")
        value = torch.as_tensor(array)
    return value.to(_USUAL.get(value.dtype, value.dtype))
