"""Parquet files in the layout of the Hugging Face hub, on this machine."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.column_tasks import Columns
from fedjoint.data.columns import Reading
from fedjoint.data.dataset import TRAIN, Dataset
from fedjoint.data.files import Paths, refuse_repeats
from fedjoint.data.labels import Targets, check_kinds, class_names
from fedjoint.data.official import find_split
from fedjoint.data.owners import read_owners
from fedjoint.data.reading import listed, say
from fedjoint.data.repeats import look_for_repeats
from fedjoint.data.source import Source
from fedjoint.data.tabular import cell, read_parquet
from fedjoint.data.text import Vocabulary
from fedjoint.errors import UserError, choose
from fedjoint.model.inputs import Inputs
from fedjoint.model.tasks import KINDS, Task
from fedjoint.options import Count, Whole


class Parquet(Source):
    """Images, texts, words, ids or lists of numbers in Parquet, one task per target column.

    Files are laid out as the Hugging Face hub has them: ``train`` and ``test`` in their names say
    their split, and images are the bytes of their files. Nothing is downloaded.

    Args:
        path: a file, a list of files, or a folder, of which every Parquet file is read.
        targets: column -> kind of task. Labels of sequences, maps and boxes are lists, as
            :class:`fedjoint.Task` says; those of a language task are the tokens that follow: name
            the input's own column.
        input: column of images, texts, or lists of words, ids or numbers; by default the only one
            that is no target.
        client_column: column that names whose an example is, for ``partition = "natural"``.
        missing: words that mean a missing label, such as NA, or -100 in lists; an empty cell always
            does.
        test_path: files of a test set, as ``path``; by default those of ``path`` that are one by
            their names.
        max_length: words kept of a text, by default 40; ids of a list, by default all.
        vocabulary: hash buckets of words, and padding.
        pad: the id that fills up lists of ids, and that is no token at their ends.
    """

    def __init__(
        self,
        path: Paths,
        targets: Targets,
        input: str | None = None,
        client_column: str | None = None,
        missing: list[str] | None = None,
        test_path: Paths | None = None,
        max_length: Count | None = None,
        vocabulary: Vocabulary = 4096,
        pad: Whole = 0,
    ) -> None:
        check_kinds(targets, KINDS)
        self.path = path
        self.targets = targets
        self.input = input
        self.client_column = client_column
        self.missing = missing
        self.test_path = test_path
        self.reading = Reading(set(targets.values()), max_length, vocabulary, pad)

    def load(self, data: DataConfig) -> Dataset:
        """Load one task per column of ``targets``.

        Inputs are those of :meth:`fedjoint.data.columns.Reading.inputs`.

        Raises:
            UserError: a file or a column is missing, files differ in their columns, inputs are of
                no one kind, or a label is wrong.
        """
        table, name = self._table, self._input
        files = [file for file, _ in self._files]
        where = listed([str(file) for file in files])
        columns = Columns(
            lambda column: table[column].to_pylist(), where, lambda row: f"{where}: row {row}"
        )
        outputs = {task: data.outputs.get(task, self._classes(task)) for task in self.targets}
        x, labels = columns.read(name, self.targets, self.reading, outputs, self.missing)
        owned = self.client_column is not None and data.partition == "natural"
        dataset = Dataset(
            tuple(task for task, _ in labels),
            Examples(x, {task.name: y for task, y in labels}),
            owner=self._owners(where) if owned else None,
            split=self._split(),
            legend=self.legend([task for task, _ in labels]),
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
        values = self._table[self._input].slice(0, 1).to_pylist()
        return self.reading.described(super().inputs(example), self._input, values)

    def options_to_read(self, inputs: Inputs, named: Collection[str]) -> dict[str, Any]:
        return self.reading.options(inputs, named)

    def class_names(self, task: Task) -> list[str] | None:
        known = self._names(task.name)
        if known or task.kind != "multiclass":
            return known
        return class_names(self._cells(task.name), self.missing)

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
        # The labels of a language task are made of its own inputs.
        language = [name for name, kind in self.targets.items() if kind == "language"]
        uses = {*self.targets, self.client_column} - set(language)
        if self.input in uses and self.input is not None:
            raise UserError(f"column {self.input!r} is input and target or client; name another")
        if self.input is not None or language:
            return self.input or language[0]
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
        names = self._names(target)
        return None if names is None else len(names)

    def _names(self, target: str) -> list[str] | None:
        """Return what the hub calls the classes of a column, or of the lists in it."""
        about = _features(self._table).get(target, {})
        inner = about.get("feature")
        return about.get("names") or (inner.get("names") if isinstance(inner, dict) else None)


def _features(table: pyarrow.Table) -> dict[str, Any]:
    """Return what the hub's own description says of the columns; nothing where there is none."""
    try:
        found = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    known = found if isinstance(found, dict) else {}
    return {name: about for name, about in known.items() if isinstance(about, dict)}
