"""Datasets of the Hugging Face hub, through Flower Datasets (an optional extra)."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.column_tasks import Columns
from fedjoint.data.columns import Reading
from fedjoint.data.dataset import TEST, TRAIN, Dataset
from fedjoint.data.labels import Targets, check_kinds
from fedjoint.data.owners import read_owners
from fedjoint.data.source import Source
from fedjoint.data.text import Vocabulary
from fedjoint.errors import UserError, choose
from fedjoint.model.inputs import Inputs
from fedjoint.model.tasks import KINDS
from fedjoint.options import Count, Whole


class Hub(Source):
    """A dataset of the Hugging Face hub, one task per target column.

    The names of its classes are not looked up.

    Args:
        name: name of the dataset, such as ylecun/mnist.
        targets: column -> kind of task, as of the source parquet.
        split: split to use; clients make their own splits of it.
        test_split: split that is the test set; by default clients split off their own.
        input: column of images, texts, or lists of words, ids or numbers.
        client_column: column that names whose an example is, for ``partition = "natural"``.
        missing: words that mean a missing label, such as NA; an empty value always does.
        max_length: words kept of a text, by default 40; ids of a list, by default all.
        vocabulary: hash buckets of words, and padding.
        pad: the id that fills up lists of ids, and that is no token at their ends.
    """

    def __init__(
        self,
        name: str,
        targets: Targets,
        split: str = "train",
        test_split: str | None = None,
        input: str = "image",
        client_column: str | None = None,
        missing: list[str] | None = None,
        max_length: Count | None = None,
        vocabulary: Vocabulary = 4096,
        pad: Whole = 0,
    ) -> None:
        check_kinds(targets, KINDS)
        self.name = name
        self.targets = targets
        self.split = split
        self.test_split = test_split
        self.input = input
        self.client_column = client_column
        self.missing = missing
        self.reading = Reading(set(targets.values()), max_length, vocabulary, pad)

    def load(self, data: DataConfig) -> Dataset:
        """Load one or two splits, and one task per column of ``targets``.

        Inputs of text become word ids ``[n, max_length]``; images become ``[n, channels, height,
        width]`` and lists of numbers ``[n, k]`` float32, bytes scaled to 0..1.

        Raises:
            UserError: Flower Datasets is not installed, the dataset, the split or a column is
                not there, inputs differ in shape, or a label is wrong.
        """
        splits, tables = self._splits, self._tables
        ends = np.cumsum([len(rows) for rows in tables])

        def values(column: str) -> list[Any]:
            for rows in tables:
                if column not in rows.column_names:
                    raise choose("column", column, rows.column_names)
            return [value for rows in tables for value in rows[column]]

        def place(row: int) -> str:
            at = int(np.searchsorted(ends, row, side="right"))
            return f"{self.name}/{splits[at]}: row {row - ends[at] + len(tables[at])}"

        columns = Columns(values, self.name, place)
        x, labels = columns.read(self.input, self.targets, self.reading, data.outputs, self.missing)
        who = self.client_column if data.partition == "natural" else None
        return Dataset(
            tuple(task for task, _ in labels),
            Examples(x, {task.name: y for task, y in labels}),
            owner=None
            if who is None
            else read_owners(who, columns.cells(who), place, self.missing),
            split=np.repeat([TRAIN, TEST], [ends[0], ends[1] - ends[0]])
            if self.test_split
            else None,
        )

    def inputs(self, example: Tensor) -> Inputs:
        first = self._tables[0][self.input][:1]
        return self.reading.described(super().inputs(example), self.input, first)

    def options_to_read(self, inputs: Inputs, named: Collection[str]) -> dict[str, Any]:
        return self.reading.options(inputs, named)

    @property
    def _splits(self) -> list[str]:
        return list(filter(None, (self.split, self.test_split)))

    @cached_property
    def _tables(self) -> list[Any]:
        if self.split == self.test_split:
            raise UserError(f"split {self.split!r} is split and test_split; name two splits")
        return [_fetch(self.name, split) for split in self._splits]


def _fetch(name: str, split: str) -> Any:
    try:
        from flwr_datasets import FederatedDataset
    except ImportError:
        raise UserError(
            "data source hub needs flwr-datasets; pip install 'fedjoint[hub]'"
        ) from None
    try:
        # One partition: clients are divided by data.partition, as with every other source.
        rows = FederatedDataset(dataset=name, partitioners={split: 1}).load_split(split)
    except Exception as error:  # its own errors, and any of the network, the hub and the files
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"cannot load split {split!r} of hub dataset {name!r}: {first}") from None
    if not len(rows):
        raise UserError(
            f"split {split!r} of hub dataset {name!r} has no rows; set data.source.options.split"
        )
    return rows
