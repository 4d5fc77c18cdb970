"""Items of a dataset of PyTorch or Hugging Face -> examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedjoint.data.base import Examples
from fedjoint.data.values import column, labels
from fedjoint.errors import ANYTHING, UserError, choose, said
from fedjoint.model.ragged import Pad
from fedjoint.model.stream import Stream
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, each, kind_of, named

#: an input, and labels by task
Pair = tuple[Any, Mapping[str, Any]]

#: items in one reading, where inputs are not kept
_PASS = 256


@dataclass(frozen=True)
class Reading:
    """How items are read: pairs ``(input, label)``, ``(input, {task: label})``, or rows of columns.

    Attributes:
        tasks: what labels are of.
        inputs: of rows: the column that is the input, or several that are a dict; None for pairs.
        targets: of rows: task -> column; by default, columns are named as the tasks.
        pad: what fills up inputs of unequal length: name -> number.
        stream: whether inputs are read when they are needed.
    """

    tasks: Sequence[Task]
    inputs: str | Sequence[str] | None
    targets: Mapping[str, str]
    pad: Pad
    stream: bool

    def examples(self, dataset: Any, tasks: Sequence[Task], who: str) -> Examples:
        """Return all items, with labels of ``tasks``.

        Args:
            dataset: has a length, and items, one or more.
            tasks: those that its owner has.
            who: whose it is, for messages.

        Raises:
            UserError: an item cannot be read, or is not like the others.
        """
        kept, y = [], {task.name: [task.missing(0)] for task in tasks}
        for index in _passes(len(dataset)):
            pairs = self.pairs(dataset, index, who)
            for task in tasks:
                own = [each_own.get(task.name) for _, each_own in pairs]
                y[task.name].append(labels(own, task, f"{who}: the label of task {task.name!r}"))
            _refuse_others([own for _, own in pairs], list(y), who)
            kept += [] if self.stream else [x for x, _ in pairs]
        found = {name: torch.cat(parts) for name, parts in y.items()}
        if self.stream:
            return Examples(Stream(_Rows(self, dataset, who)), found)
        return Examples(self._stacked(kept, who), found)

    def read(self, dataset: Any, index: Sequence[int], who: str) -> Input:
        """Return the inputs of the items at ``index``."""
        return self._stacked([x for x, _ in self.pairs(dataset, index, who)], who)

    def lengths(self, dataset: Any, who: str) -> dict[str, int]:
        """Return the longest of those inputs that are of unequal length, by name."""
        found = dict.fromkeys(self.pad, 0)
        for index in _passes(len(dataset) if self.pad else 0):
            parts = named(self.read(dataset, index, who))
            found = {n: max(most, parts[n].shape[1]) for n, most in found.items() if n in parts}
        return found

    def pairs(self, dataset: Any, index: Sequence[int], who: str) -> list[Pair]:
        """Return inputs and labels of the items at ``index``, as the dataset has them.

        Raises:
            UserError: an item cannot be read, or is of no kind that is known.
        """
        several = getattr(dataset, "__getitems__", None)
        try:
            items = several(list(index)) if several else [dataset[at] for at in index]
        except ANYTHING as error:  # a dataset of the user's own
            raise UserError(f"{who}: its items cannot be read: {said(error)}") from error
        return [self._row(i, who) if isinstance(i, Mapping) else self._pair(i, who) for i in items]

    def _pair(self, item: Any, who: str) -> Pair:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UserError(
                f"{who}: an item is {kind_of(item)}: give pairs (input, label), or rows of columns"
            )
        if self.inputs is not None or self.targets:
            raise UserError(
                f"{who}: its items are pairs without columns: leave out inputs and targets"
            )
        x, y = item
        known = [task.name for task in self.tasks]
        if not isinstance(y, Mapping):
            if len(known) != 1:
                names = ", ".join(map(repr, known))
                raise UserError(f"{who}: an item has one label, of {names}: give a dict by task")
            return x, {known[0]: y}
        for name in y:
            if name not in known:
                raise choose(f"task in the labels of {who}", str(name), known)
        return x, y

    def _row(self, row: Mapping[str, Any], who: str) -> Pair:
        if self.inputs is None:
            columns = ", ".join(map(repr, row))
            raise UserError(f"{who}: its items have the columns {columns}: name some in inputs")
        wanted = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        for name in wanted:
            if name not in row:
                raise choose(f"column in inputs, {who} has none:", name, map(str, row))
        of = {task.name: self.targets.get(task.name, task.name) for task in self.tasks}
        y = {name: row[own] for name, own in of.items() if own in row}
        return row[self.inputs] if isinstance(self.inputs, str) else {n: row[n] for n in wanted}, y

    def _stacked(self, values: Sequence[Any], who: str) -> Input:
        if not isinstance(values[0], Mapping):
            return column(values, self.pad.get(""), f"{who}: the input")
        for other in values:
            if not isinstance(other, Mapping) or other.keys() != values[0].keys():
                raise UserError(f"{who}: its inputs are not all dicts of the same names")
        found = {}
        for name in values[0]:
            own = [value[name] for value in values]
            found[name] = column(own, self.pad.get(name), f"{who}: the input {name!r}")
        return found


@dataclass(frozen=True)
class _Rows:
    """The inputs of a dataset, for a :class:`Stream`."""

    reading: Reading
    dataset: Any
    who: str

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: list[int]) -> Input:
        if index:
            return self.reading.read(self.dataset, index, self.who)
        none: Input = each(_no_rows, self.reading.read(self.dataset, [0], self.who))
        return none


def _no_rows(x: Tensor) -> Tensor:
    return x[:0]


def _refuse_others(each_own: Sequence[Mapping[str, Any]], names: Sequence[str], who: str) -> None:
    for own in each_own:
        for name, label in own.items():
            if name not in names and label is not None:
                raise UserError(
                    f"{who}: an item has a label of task {name!r}, and the first training item has "
                    "none: give that None where its label is missing"
                )


def _passes(count: int) -> Iterator[range]:
    return (range(at, min(at + _PASS, count)) for at in range(0, count, _PASS))
