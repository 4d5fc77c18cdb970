"""Columns of Parquet, or of the hub -> inputs and labels of tasks of every kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedjoint.data.column_labels import aligned, following, list_labels, preferred
from fedjoint.data.columns import Reading
from fedjoint.data.labels import CELLS, Targets, Where, read_labels
from fedjoint.data.tabular import cell
from fedjoint.data.text import words_in
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        values: name -> the values of a column.
        where: the table, for errors.
        place: names a row in errors.
    """

    values: Callable[[str], Sequence[Any]]
    where: str
    place: Where

    def at(self, column: str) -> str:
        """Name a column in errors."""
        return f"{self.where}: {column!r}"

    def cells(self, column: str) -> list[str]:
        """Return a column as cells of text."""
        return [cell(value, self.at(column)) for value in self.values(column)]

    def read(
        self,
        name: str,
        targets: Targets,
        reading: Reading,
        outputs: Mapping[str, int | None],
        missing: Collection[str] | None,
    ) -> tuple[Tensor, list[tuple[Task, Tensor]]]:
        """Return the inputs, and each task with its labels.

        Args:
            name: column of the inputs.
            targets: column -> kind of task; of a language task, the column of the inputs.
            reading: how inputs are read.
            outputs: task -> what was declared, or is known of its classes.
            missing: words that mean a missing label.

        Raises:
            UserError: a value is malformed, or columns do not fit one another.
        """
        given = self.values(name)
        x = reading.inputs(given, self.at(name))
        found = []
        for task, kind in targets.items():
            own = outputs.get(task)
            if kind in CELLS:
                cells = self.cells(task)
                found.append(read_labels(task, kind, cells, self.place, own, missing))
            elif kind == "preference":
                found.append(preferred(task, self.values(task), self.at(task), x, own))
            elif kind == "language":
                found.append(self._language(task, name, given, x, reading, own))
            else:
                values = self.values(task)
                labels = list_labels(task, kind, values, self.at(task), own, missing)
                if kind == "tokens":
                    lengths = [len(words_in(value)) for value in given]
                    labels = aligned(*labels, lengths, values, x, self.at(task))
                found.append(labels)
        return x, found

    def _language(
        self,
        task: str,
        name: str,
        given: Sequence[Any],
        x: Tensor,
        reading: Reading,
        outputs: int | None,
    ) -> tuple[Task, Tensor]:
        if task != name:
            raise UserError(
                f"{self.at(task)}: the labels of a language task are the tokens that follow: name "
                f"the input itself, data.source.options.targets = {{ {name} = 'language' }}"
            )
        if isinstance(given[0], str) or isinstance(given[0][0], str):
            raise UserError(
                f"{self.at(name)}: a language task needs tokens, and words are hashed: give lists "
                "of the ids of a tokenizer"
            )
        return following(task, x, reading.pad, self.at(name), outputs)
