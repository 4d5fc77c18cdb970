"""Tables: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.data.files import find
from fedjoint.data.labels import Targets, class_names, read_labels
from fedjoint.data.source import Source
from fedjoint.data.tabular import Table, join, number, read_table
from fedjoint.errors import UserError, choose
from fedjoint.model.inputs import Inputs
from fedjoint.model.tasks import Task


class Csv(Source):
    """One task per target column of a table, and the other columns of numbers as features.

    Several files are joined; they need the same columns. Targets are used as they are: scale
    regression targets to about unit size beforehand.

    Args:
        path: a file, a folder of files, or a list of files.
        targets: column -> kind of task: multiclass, multilabel or regression.
        client_column: column that names whose an example is, for ``partition = "natural"``.
        features: feature columns; by default every other column of numbers.
        standardise: each client standardises features by its own training examples' mean and
            deviation; no statistics are shared.
        encoding: of the files; by default UTF-8, and Latin-1 where that fails.
    """

    def __init__(
        self,
        path: str | list[str],
        targets: Targets,
        client_column: str | None = None,
        features: list[str] | None = None,
        standardise: bool = True,
        encoding: str | None = None,
    ) -> None:
        self.path = path
        self.targets = targets
        self.client_column = client_column
        self.features = features
        self.standardise = standardise
        self.encoding = encoding

    def load(self, data: DataConfig) -> Dataset:
        """Load one task per column of ``targets``; ``x`` is ``[n, features]`` float32.

        Raises:
            UserError: a file or a column is missing, a row is malformed, a feature is no finite
                number, or a label is wrong (see :func:`fedjoint.data.labels.read_labels`).
        """
        table = self._table
        x = np.stack([_numbers(table, name) for name in self._feature_columns()], 1)
        labels = {
            name: read_labels(
                name, kind, table.columns[name], table.places.__getitem__, data.outputs.get(name)
            )
            for name, kind in self.targets.items()
        }
        return Dataset(
            tuple(task for task, _ in labels.values()),
            Examples(torch.from_numpy(x), {name: y for name, (_, y) in labels.items()}),
            owner=self._owners() if data.partition == "natural" else None,
            strata=self._strata(data.by),
        )

    def inputs(self, example: Tensor) -> Inputs:
        columns = list(self._feature_columns())
        return super().inputs(example).model_copy(update={"columns": columns})

    def class_names(self, task: Task) -> list[str] | None:
        return class_names(self._table.columns[task.name])

    @cached_property
    def _table(self) -> Table:
        """The files' rows, with the columns that the options name."""
        table = join([read_table(path, self.encoding) for path in find(self.path)])
        for name in [*self.targets, *(self.features or []), self.client_column]:
            if name is not None and name not in table.columns:
                raise choose("column", name, table.columns)
        return table

    def _feature_columns(self) -> Sequence[str]:
        return self.features or _numeric(self._table, {*self.targets, self.client_column})

    def _owners(self) -> np.ndarray | None:
        if self.client_column is None:
            return None
        owners = self._table.columns[self.client_column]
        for row, owner in enumerate(owners):
            if not owner.strip():
                raise UserError(
                    f"{self._table.places[row]}: client_column {self.client_column!r} is empty; "
                    "name the row's client or leave the row out"
                )
        return np.array(owners)

    def _strata(self, by: str | None) -> np.ndarray | None:
        if by is None or by in self.targets:
            return None
        if by not in self._table.columns:
            raise choose("column in data.by", by, self._table.columns)
        return np.unique(self._table.columns[by], return_inverse=True)[1]


def _numeric(table: Table, taken: set[str | None]) -> list[str]:
    """Return the columns that are not ``taken`` and whose first filled cell is a number."""
    begins = {
        name: next((cell for cell in cells if cell.strip()), "")
        for name, cells in table.columns.items()
        if name not in taken
    }
    names = [name for name, first in begins.items() if number(first) is not None]
    if not names:
        raise UserError(
            f"{table.places[0]}: no column of numbers is left; set data.source.options.features"
        )
    return names


def _numbers(table: Table, name: str) -> np.ndarray:
    x = table.numbers(name)
    wrong = ~np.isfinite(x)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{table.places[row]}: feature {name!r} is {table.columns[name][row]!r}, not a finite "
            "number; fix the row or leave the column out of data.source.options.features"
        )
    return x
