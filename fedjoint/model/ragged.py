"""Inputs of unequal length, such as sentences: padded to the length of the model's example.

That length depends on no other client, so numbers do not depend on who is trained together. The
model has to leave padding out, by a mask or by the padding's own value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import pad as padded_by

from fedjoint.errors import UserError, choose
from fedjoint.model.tree import Input, like, named

#: what fills up a tensor of unequal length: name -> number; one tensor alone has the name ``""``
Pad = Mapping[str, float]


def checked_pad(pad: Any, example: Input) -> Pad:
    """Return what fills up tensors of unequal length, by name.

    Args:
        pad: a number where an input is one tensor, or a dict name -> number; None: nothing does.
        example: ``[1, ...]``, as long as the longest.

    Raises:
        UserError: it is no number, no tensor has such a name, or the tensor has no length.
    """
    if pad is None:
        return {}
    parts = named(example)
    values = pad if isinstance(pad, Mapping) else {"": pad}
    for name, value in values.items():
        if name not in parts and not name:
            raise UserError(f"pad = {pad!r}: give a number for each: {', '.join(map(repr, parts))}")
        if name not in parts:
            raise choose("tensor in pad", str(name), parts)
        if not isinstance(value, int | float):
            raise UserError(f"pad of {name or 'the inputs'} is {value!r}: give a number")
        if parts[name].ndim < 2:
            raise UserError(f"pad of {name or 'the inputs'}: each is one number, and has no length")
    return dict(values)


def padded(x: Input, example: Input, pad: Pad, who: str) -> Input:
    """Return ``x`` filled up to the example's length where ``pad`` says by what.

    Args:
        x: ``[n, length, ...]``, or a dict of such.
        example: ``[1, longest, ...]``.
        pad: what :func:`checked_pad` returns.
        who: whose inputs they are, for the message.

    Raises:
        UserError: they are longer than the example, or two of a dict that are of one length in the
            example are not.
    """
    lengths: dict[int, tuple[str, int]] = {}
    for name, wanted in named(example).items():
        own = named(x).get(name)
        if name not in pad or own is None or own.ndim < 2:
            continue
        longest, length = wanted.shape[1], own.shape[1]
        what = f"{who}, {name!r}," if name else who
        if length > longest:
            raise UserError(
                f"{what} have the length {length}, and the example {longest}: cut them, or give "
                "an example that is as long as the longest"
            )
        other, same = lengths.setdefault(longest, (name, length))
        if same != length:
            raise UserError(
                f"{who}: {name!r} has the length {length}, and {other!r} {same}: give them one "
                "length, as in the example"
            )
    if not lengths:
        return x
    longer = {
        name: filled(part, named(example)[name].shape[1], pad[name])
        for name, part in named(x).items()
        if name in pad and part.ndim > 1 and name in named(example)
    }
    return like({**named(x), **longer}, x)


def filled(x: Tensor, length: int, value: float) -> Tensor:
    """Return ``x`` ``[n, shorter, ...]`` filled up to ``[n, length, ...]``."""
    return padded_by(x, (0, 0) * (x.ndim - 2) + (0, length - x.shape[1]), value=value)
