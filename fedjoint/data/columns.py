"""A column of images, texts or numbers -> the inputs of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedjoint.data.cells import stacked
from fedjoint.data.pixels import channels_first, decode, scaled
from fedjoint.data.text import encode
from fedjoint.errors import UserError


def column_inputs(values: Sequence[Any], where: str, max_length: int, vocabulary: int) -> Tensor:
    """Return the inputs of a column of one kind.

    Texts become word ids ``[n, max_length]``, image files and arrays of images ``[n, channels,
    height, width]``, and lists of numbers ``[n, k]`` float32; bytes are scaled to 0..1.

    Args:
        values: ``n`` of them.
        where: the column, for errors.
        max_length: words kept of a text.
        vocabulary: hash buckets of words, and padding.

    Raises:
        UserError: they are of no such kind, or not all of one kind and shape.
    """
    kinds = {type(value) for value in values}
    if str in kinds:
        for row, value in enumerate(values):
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"{where} of row {row} has no words; leave the row out")
        return encode(values, max_length, vocabulary)
    if kinds & {bytes, dict}:
        return decode(values, where)
    return _arrays(values, where)


def _arrays(values: Sequence[Any], where: str) -> Tensor:
    array = stacked(values, where, hint="choose another data.source.options.input")
    x = torch.from_numpy(scaled(array, where))
    if x.ndim in (3, 4):
        return channels_first(x)
    return x[:, None] if x.ndim == 1 else x
