"""Arrays in files of NumPy: inputs, and labels of any kind of task."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.data.files import Paths, refuse_repeats
from fedjoint.data.label_arrays import labels_of
from fedjoint.data.labels import check_kinds
from fedjoint.data.numpy_files import read_npz
from fedjoint.data.official import find_split
from fedjoint.data.pixels import scaled
from fedjoint.data.reading import say
from fedjoint.data.source import Source
from fedjoint.errors import UserError
from fedjoint.model.inputs import Inputs
from fedjoint.model.tasks import KINDS
from fedjoint.options import Whole


class Npz(Source):
    """Arrays by name in ``.npz`` files, with a row for each example.

    Args:
        path: files or folders. Beside training files, those of a name with ``test`` stay the test
            set, as those with ``valid`` the validation set.
        targets: array -> kind of task; labels are of the shapes that :class:`fedjoint.Task` says.
            The number of classes is that of the largest, or what ``data.outputs`` declares; that of
            boxes has to be declared where the last classes may be missing.
        input: array of the inputs: real numbers, bytes (scaled to 0..1), or whole numbers as ids.
        ignore: a whole number that is a missing label, too, such as 255.
        client_column: array that says whose an example is, for ``partition = "natural"``.
        test_path: files of a test set.
    """

    def __init__(
        self,
        path: Paths,
        targets: dict[str, str],
        input: str = "x",
        ignore: Whole | None = None,
        client_column: str | None = None,
        test_path: Paths | None = None,
    ) -> None:
        check_kinds(targets, KINDS)
        if not targets:
            raise UserError("targets name no array: give one or more")
        self.path, self.targets, self.input = path, targets, input
        self.ignore, self.client_column, self.test_path = ignore, client_column, test_path

    def load(self, data: DataConfig) -> Dataset:
        """Load the arrays of all files, one after the other.

        Raises:
            UserError: a file is missing or malformed, an array is not there, or arrays do not fit
                one another or their tasks.
        """
        files = find_split(self.path, self.test_path, ".npz")
        refuse_repeats(file for file, _ in files)
        parts = [self._read(file) for file, _ in files]
        arrays = {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}
        where = f"{files[0][0]}, {self.input!r}"
        inputs = arrays.pop(self.input)
        owner = arrays.pop(self.client_column) if self.client_column else None
        labelled = [
            labels_of(
                f"{files[0][0]}, {name!r}",
                name,
                kind,
                arrays[name],
                data.outputs.get(name),
                () if self.ignore is None else (self.ignore,),
            )
            for name, kind in self.targets.items()
        ]
        splits = np.repeat([split for _, split in files], [len(p[self.input]) for p in parts])
        dataset = Dataset(
            tuple(task for task, _ in labelled),
            Examples(_inputs(where, inputs), {task.name: y for task, y in labelled}),
            owner=owner,
            split=splits if splits.any() else None,
        )
        self._stored = inputs.dtype.name
        shape = " x ".join(map(str, inputs.shape[1:]))
        say([file for file, _ in files], dataset, inputs=f"{inputs.dtype.name} of {shape}")
        return dataset

    def inputs(self, example: Tensor) -> Inputs:
        own = {
            "pixels": True,
            "stored": self._stored,
            "name": self.input,
            "items": "preference" in self.targets.values(),
        }
        return super().inputs(example).model_copy(update=own)

    @cached_property
    def _stored(self) -> str:  # which load() knows
        files = find_split(self.path, self.test_path, ".npz")
        types = {read_npz(file, [self.input])[self.input].dtype for file, _ in files}
        return np.result_type(*types).name

    def options_to_read(self, inputs: Inputs, named: Collection[str]) -> dict[str, Any]:
        return {} if inputs.name is None or "input" in named else {"input": inputs.name}

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        """Return the arrays that are used, each with as many rows as the inputs."""
        names = [self.input, *self.targets, *([self.client_column] if self.client_column else [])]
        found = read_npz(path, names, texts=[self.client_column])
        rows = {name: len(array) if array.ndim else None for name, array in found.items()}
        for name, count in rows.items():
            if count is None or count != rows[self.input]:
                raise UserError(
                    f"{path}: {name!r} has {count or 'no'} rows, and {self.input!r} has "
                    f"{rows[self.input]}: give one for each example"
                )
        if not found[self.input].size:
            raise UserError(f"{path}: the file has no examples; check data.source.options.path")
        return found


def _joined(name: str, parts: list[np.ndarray]) -> np.ndarray:
    for part in parts:
        if part.shape[1:] != parts[0].shape[1:] or part.dtype.kind != parts[0].dtype.kind:
            raise UserError(
                f"{name!r} is {part.dtype.name} of shape {part.shape[1:]} in one file and "
                f"{parts[0].dtype.name} of {parts[0].shape[1:]} in another; join files of one kind"
            )
    return np.concatenate(parts)


def _inputs(where: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return torch.from_numpy(array.astype(np.int64))
    x = torch.from_numpy(scaled(array, where))
    return x[:, None] if x.ndim in (1, 3) and array.dtype == np.uint8 else x
