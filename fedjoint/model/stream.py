"""Inputs that do not fit in memory: their rows are read when a minibatch needs them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.likeness import Likeness
from fedjoint.model.tree import Input, cat, check_tree, count, each

#: rows in one reading, where all are read one after the other
_PASS = 256


class Rows(Protocol):
    """What can be asked for some of its rows: a memory-mapped array, or a reader of one's own."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: list[int], /) -> Any:
        """Return the rows at ``index``: an array or a tensor ``[m, ...]``, or a dict of them."""


class Stream:
    """Stands for ``[n, ...]`` inputs of :class:`fedjoint.Examples`, and reads them when asked.

    Nothing of what was read is kept. Labels are in memory.

    Args:
        rows: has a length, and returns rows by a list of their numbers, such as
            ``numpy.load(path, mmap_mode="r")``; a whole memory-mapped array travels to other
            processes as the path of its file.

    Raises:
        UserError: it has no length, or no rows.
    """

    def __init__(self, rows: Rows) -> None:
        if not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
            raise UserError(f"a stream reads from {type(rows).__name__}, which has no rows")
        self._rows = rows
        self._index = torch.arange(len(rows))
        self._likeness: Likeness | None = None
        self._who = "a stream"

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Tensor) -> Stream:
        """Return the stream of the rows at ``index`` ``[m]``; nothing is read."""
        return self._but(_index=self._index[index.cpu()])

    def like(self, likeness: Likeness, who: str) -> Stream:
        """Return the stream of which every reading is padded, and compared.

        Args:
            likeness: what its rows have to be like.
            who: whose inputs it has, for messages.
        """
        return self._but(_likeness=likeness, _who=who)

    def read(self, index: Tensor) -> Input:
        """Return the rows at ``index`` ``[m]``.

        Raises:
            UserError: they cannot be read, or are not what the model takes.
        """
        likeness = self._likeness
        if likeness is not None and not len(self):  # padding of a client without examples
            return each(lambda x: x.new_zeros(len(index), *x.shape[1:]), likeness.example)
        try:
            found = self._rows[self._index[index.cpu()].tolist()]
        except UserError:
            raise
        except ANYTHING as error:  # a reader of the user's own may raise anything
            raise UserError(f"{self._who}: its rows cannot be read: {said(error)}") from error
        x = each(_as_tensor, found)
        check_tree(x, self._who)
        if count(x) != len(index):
            raise UserError(f"{self._who}: of {len(index)} rows it reads {count(x)}")
        return x if likeness is None else likeness.fitted(x, self._who)

    def passes(self) -> Iterator[Input]:
        """Yield all rows, a few at a time."""
        for start in range(0, len(self), _PASS):
            yield self.read(torch.arange(start, min(start + _PASS, len(self))))

    def _but(self, **changes: Any) -> Stream:
        other = object.__new__(type(self))
        vars(other).update(vars(self) | changes)
        return other

    def __getstate__(self) -> dict[str, Any]:
        rows = self._rows
        if isinstance(rows, np.memmap) and rows.filename and isinstance(rows.base, mmap.mmap):
            place = (rows.filename, rows.dtype, "r", rows.offset, rows.shape, _order(rows))
            return {**vars(self), "_rows": place}
        return vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(self._rows, tuple):
            self._rows = np.memmap(*self._rows)


def passes(x: Input | Stream) -> Iterator[Input]:
    """Yield all inputs, a few at a time."""
    if isinstance(x, Stream):
        yield from x.passes()
        return
    for start in range(0, count(x), _PASS):
        yield each(lambda part, at=slice(start, start + _PASS): part[at], x)


def loaded(x: Input | Stream) -> Input:
    """Return inputs in memory."""
    if not isinstance(x, Stream):
        return x
    return cat(list(x.passes())) if len(x) else x.read(torch.arange(0))


def _order(rows: np.memmap) -> str:
    return "F" if rows.flags.f_contiguous and not rows.flags.c_contiguous else "C"


def _as_tensor(rows: Any) -> Any:
    return torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows
