"""Tables in CSV and Parquet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import TRAIN, Dataset
from fedjoint.data.features import choose_features, feature
from fedjoint.data.files import Paths, refuse_repeats
from fedjoint.data.labels import CELLS, Targets, check_kinds, class_names, read_labels
from fedjoint.data.official import find_split, splits_in
from fedjoint.data.owners import read_owners
from fedjoint.data.reading import listed, say
from fedjoint.data.repeats import look_for_repeats
from fedjoint.data.source import Source
from fedjoint.data.tabular import Table, join, read_table
from fedjoint.errors import UserError, choose
from fedjoint.model.inputs import Inputs
from fedjoint.model.tasks import Task


class Csv(Source):
    """One task per target column of a table, and the other columns of numbers as features.

    Several files are joined; they need the same columns. A file that is a test set by its name,
    beside one for training, stays the test set.

    Args:
        path: a file, a folder of files, or a list of files.
        targets: column -> kind of task: multiclass, multilabel or regression.
        client_column: column that names whose an example is, for ``partition = "natural"``.
        features: feature columns; by default every other column of numbers.
        drop: columns to leave out.
        standardise: each client standardises features by its own training examples' mean and
            deviation; no statistics are shared.
        encoding: of the files; by default UTF-8, and Latin-1 where that fails.
        delimiter: between cells, one character; by default a tab in .tsv files, else a comma.
        missing: words that mean a missing label, such as NA; an empty cell always does.
        test_path: files of a test set, as ``path``; by default clients split off their own.
        split_column: column that says train, valid or test of each row.
    """

    def __init__(
        self,
        path: Paths,
        targets: Targets,
        client_column: str | None = None,
        features: list[str] | None = None,
        drop: list[str] | None = None,
        standardise: bool = True,
        encoding: str | None = None,
        delimiter: str | None = None,
        missing: list[str] | None = None,
        test_path: Paths | None = None,
        split_column: str | None = None,
    ) -> None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise UserError(
                f"data.source.options.delimiter is {delimiter!r}: give one character, such as ';'"
            )
        check_kinds(targets, CELLS)
        if not targets:
            raise UserError("data.source.options.targets names no column; name one or more")
        self.path = path
        self.targets = targets
        self.client_column = client_column
        self.features = features
        self.drop = drop or []
        self.standardise = standardise
        self.encoding = encoding
        self.delimiter = delimiter
        self.missing = missing
        self.test_path = test_path
        self.split_column = split_column

    def load(self, data: DataConfig) -> Dataset:
        """Load one task per column of ``targets``; ``x`` is ``[n, features]`` float32.

        Raises:
            UserError: a file or a column is missing or has two uses, a row is malformed, a feature
                is no finite number, or a label is wrong (see
                :func:`fedjoint.data.labels.read_labels`).
        """
        table = self._table
        features, left_out = self._columns
        x = np.stack([feature(table, name) for name in features], 1)
        labels = {
            name: read_labels(
                name,
                kind,
                table.columns[name],
                table.place,
                data.outputs.get(name),
                self.missing,
            )
            for name, kind in self.targets.items()
        }
        dataset = Dataset(
            tuple(task for task, _ in labels.values()),
            Examples(torch.from_numpy(x), {name: y for name, (_, y) in labels.items()}),
            owner=self._owners() if data.partition == "natural" else None,
            strata=self._strata(data.by),
            split=self._split(),
            legend=(*features, *self.legend([task for task, _ in labels.values()])),
        )
        files = [file for file, _ in self._files]
        say(
            files,
            dataset,
            inputs=f"{len(features)} columns: {listed(features)}",
            left_out=left_out,
            notes=[
                *table.notes,
                *look_for_repeats(files, [own.rows for own in self._tables], dataset),
            ],
        )
        return dataset

    def inputs(self, example: Tensor) -> Inputs:
        return super().inputs(example).model_copy(update={"columns": self._columns[0]})

    def options_to_read(self, inputs: Inputs, named: Collection[str]) -> dict[str, Any]:
        columns = inputs.columns
        dropped = [name for name in self.drop if name not in self.targets]  # a task is read now
        if columns and (not self.features or sorted(self.features) == sorted(columns)):
            return {"features": columns, "drop": dropped}
        return {"drop": dropped}

    def class_names(self, task: Task) -> list[str] | None:
        return class_names(self._table.columns[task.name], self.missing)

    @cached_property
    def _files(self) -> list[tuple[Path, int]]:
        files = find_split(self.path, self.test_path)
        refuse_repeats(file for file, _ in files)
        return files

    @cached_property
    def _tables(self) -> list[Table]:
        return [read_table(file, self.encoding, self.delimiter) for file, _ in self._files]

    @cached_property
    def _table(self) -> Table:
        """The files' rows, with the columns that the options name, each for one use."""
        table = join(self._tables)
        uses: dict[str, str] = {}
        for use, names in self._uses().items():
            for name in names:
                if name not in table.columns and name not in table.unread:
                    raise choose("column", name, [*table.columns, *table.unread])
                if name in uses:
                    twice = "twice" if use == uses[name] else f"and in {uses[name]}"
                    raise UserError(
                        f"column {name!r} is named in data.source.options.{use} {twice}; it can "
                        "have one use"
                    )
                if name in table.unread and use != "drop":
                    raise UserError(
                        f"{table.place(0)}: column {name!r} is {table.unread[name]}, which is "
                        "neither text nor a number; leave it out"
                    )
                uses[name] = use
        return table

    def _uses(self) -> dict[str, Sequence[str]]:
        """Return the columns that each option names."""
        single = {"client_column": self.client_column, "split_column": self.split_column}
        return {
            "targets": list(self.targets),
            "features": self.features or [],
            "drop": self.drop,
            **{use: [name] for use, name in single.items() if name is not None},
        }

    @cached_property
    def _columns(self) -> tuple[list[str], dict[str, str]]:
        """The features, and why other columns are none."""
        table = self._table
        if self.features:
            return self.features, {}
        taken = {name for names in self._uses().values() for name in names}
        return choose_features(table, taken)

    def _split(self) -> np.ndarray | None:
        if self.split_column is not None:
            if any(split != TRAIN for _, split in self._files):
                raise UserError(
                    "data.source.options.split_column says which rows are the test set, and so do "
                    "the files; leave one of them out"
                )
            return splits_in(
                self.split_column, self._table.columns[self.split_column], self._table.place
            )
        files = zip(self._files, self._tables, strict=True)
        each = [np.full(table.rows, split) for (_, split), table in files]
        return None if all(split == TRAIN for _, split in self._files) else np.concatenate(each)

    def _owners(self) -> np.ndarray | None:
        if self.client_column is None:
            return None
        table, column = self._table, self.client_column
        return read_owners(column, table.columns[column], table.place, self.missing)

    def _strata(self, by: str | None) -> np.ndarray | None:
        if by is None or by in self.targets:
            return None
        if by not in self._table.columns:
            raise choose("column in data.by", by, self._table.columns)
        return np.unique(self._table.columns[by], return_inverse=True)[1]
