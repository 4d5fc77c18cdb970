"""Parquet files in the layout of the Hugging Face hub, on this machine."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.columns import column_inputs
from fedjoint.data.dataset import TRAIN, Dataset
from fedjoint.data.files import Paths, refuse_repeats
from fedjoint.data.labels import Targets, class_names, read_labels
from fedjoint.data.official import find_split
from fedjoint.data.owners import read_owners
from fedjoint.data.reading import listed, say
from fedjoint.data.repeats import look_for_repeats
from fedjoint.data.source import Source
from fedjoint.data.tabular import cell, read_parquet
from fedjoint.data.text import Vocabulary
from fedjoint.errors import UserError, choose
from fedjoint.model.inputs import Inputs, Words
from fedjoint.model.tasks import Task
from fedjoint.options import Count


class Parquet(Source):
    """Images, texts or lists of numbers in Parquet, one task per target column.

    Files are laid out as the Hugging Face hub has them: ``train`` and ``test`` in their names say
    their split, and images are the bytes of their files. Nothing is downloaded.

    Args:
        path: a file, a list of files, or a folder, of which every Parquet file is read.
        targets: column -> kind of task: multiclass, multilabel or regression.
        input: column of images, texts or lists of numbers; by default the only one that is no
            target.
        client_column: column that names whose an example is, for ``partition = "natural"``.
        missing: words that mean a missing label, such as NA; an empty cell always does.
        test_path: files of a test set, as ``path``; by default those of ``path`` that are one by
            their names.
        max_length: words kept of a text.
        vocabulary: hash buckets of words, and padding.
    """

    def __init__(
        self,
        path: Paths,
        targets: Targets,
        input: str | None = None,
        client_column: str | None = None,
        missing: list[str] | None = None,
        test_path: Paths | None = None,
        max_length: Count = 40,
        vocabulary: Vocabulary = 4096,
    ) -> None:
        self.path = path
        self.targets = targets
        self.input = input
        self.client_column = client_column
        self.missing = missing
        self.test_path = test_path
        self.max_length = max_length
        self.vocabulary = vocabulary

    def load(self, data: DataConfig) -> Dataset:
        """Load one task per column of ``targets``.

        Inputs are those of :func:`fedjoint.data.columns.column_inputs`.

        Raises:
            UserError: a file or a column is missing, files differ in their columns, inputs are of
                no one kind, or a label is wrong.
        """
        table, name = self._table, self._input
        files = [file for file, _ in self._files]
        where = listed([str(file) for file in files])
        labels = {
            task: read_labels(
                task,
                kind,
                self._cells(task),
                lambda row: f"{where}: row {row}",
                data.outputs.get(task, self._classes(task)),
                self.missing,
            )
            for task, kind in self.targets.items()
        }
        values = table[name].to_pylist()
        x = column_inputs(values, f"{where}: {name!r}", self.max_length, self.vocabulary)
        owned = self.client_column is not None and data.partition == "natural"
        dataset = Dataset(
            tuple(task for task, _ in labels.values()),
            Examples(x, {n: y for n, (_, y) in labels.items()}),
            owner=self._owners(where) if owned else None,
            split=self._split(),
            legend=self.legend([task for task, _ in labels.values()]),
        )
        uses = {name, *self.targets, self.client_column}
        say(
            files,
            dataset,
            inputs=f"{name!r} of shape {' x '.join(map(str, x.shape[1:]))}",
            left_out={n: str(table[n].type) for n in table.column_names if n not in uses},
            notes=look_for_repeats(files, [own.num_rows for own in self._tables], dataset),
        )
        return dataset

    def inputs(self, example: Tensor) -> Inputs:
        read = super().inputs(example).model_copy(update={"name": self._input})
        if read.dtype == "int64":
            words = Words(max_length=self.max_length, vocabulary=self.vocabulary)
            return read.model_copy(update={"words": words})
        return read.model_copy(update={"pixels": True})

    def class_names(self, task: Task) -> list[str] | None:
        known = _features(self._table).get(task.name, {}).get("names")
        return known or class_names(self._cells(task.name), self.missing)

    @cached_property
    def _files(self) -> list[tuple[Path, int]]:
        files = find_split(self.path, self.test_path, ".parquet")
        refuse_repeats(file for file, _ in files)
        return files

    @cached_property
    def _tables(self) -> list[pyarrow.Table]:
        return [read_parquet(file) for file, _ in self._files]

    @cached_property
    def _table(self) -> pyarrow.Table:
        """The files' rows, with the columns that the options name."""
        first = self._tables[0]
        for (file, _), table in zip(self._files, self._tables, strict=True):
            if not table.num_rows:
                raise UserError(f"{file}: the table has no rows; leave it out")
            if not table.schema.equals(first.schema):
                odd = set(table.schema) ^ set(first.schema)
                column = min((field.name for field in odd), default="their order")
                raise UserError(
                    f"{file}: its columns are not those of {self._files[0][0]} ({column}); give "
                    "files of one data set"
                )
        for name in [self.input, *self.targets, self.client_column]:
            if name is not None and name not in first.column_names:
                raise choose("column", name, first.column_names)
        return pyarrow.concat_tables(self._tables)

    @property
    def _input(self) -> str:
        if self.input in (*self.targets, self.client_column) and self.input is not None:
            raise UserError(f"column {self.input!r} is input and target or client; name another")
        if self.input is not None:
            return self.input
        uses = {*self.targets, self.client_column}
        free = [name for name in self._table.column_names if name not in uses]
        if len(free) != 1:
            raise UserError(
                f"{self._files[0][0]}: its columns beside the targets are {', '.join(free)}; say "
                "which is the input by data.source.options.input"
            )
        return free[0]

    def _cells(self, column: str) -> list[str]:
        where = f"{self._files[0][0]}: {column!r}"
        return [cell(value, where) for value in self._table[column].to_pylist()]

    def _owners(self, where: str) -> np.ndarray:
        assert self.client_column is not None, "the caller asked"
        cells = self._cells(self.client_column)
        return read_owners(self.client_column, cells, lambda i: f"{where}: row {i}", self.missing)

    def _split(self) -> np.ndarray | None:
        if all(split == TRAIN for _, split in self._files):
            return None
        files = zip(self._files, self._tables, strict=True)
        return np.concatenate([np.full(table.num_rows, split) for (_, split), table in files])

    def _classes(self, target: str) -> int | None:
        names = _features(self._table).get(target, {}).get("names")
        return None if names is None else len(names)


def _features(table: pyarrow.Table) -> dict[str, Any]:
    """Return what the hub's own description says of the columns; nothing where there is none."""
    try:
        found = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    known = found if isinstance(found, dict) else {}
    return {name: about for name, about in known.items() if isinstance(about, dict)}
