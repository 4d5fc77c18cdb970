"""Datasets of the Hugging Face hub, through Flower Datasets (an optional extra)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.data.labels import Targets, read_labels
from fedjoint.data.source import Source
from fedjoint.data.tabular import cell
from fedjoint.data.text import Vocabulary, encode
from fedjoint.errors import UserError, choose
from fedjoint.model.inputs import Inputs, Words
from fedjoint.options import Count


class Hub(Source):
    """A dataset of the Hugging Face hub, one task per target column.

    The names of its classes are not looked up.

    Args:
        name: name of the dataset, such as ylecun/mnist.
        targets: column -> kind of task: multiclass, multilabel or regression.
        split: split to use; clients make their own splits of it.
        input: column of images, texts or numbers.
        client_column: column that names whose an example is, for ``partition = "natural"``.
        max_length: words kept of a text.
        vocabulary: hash buckets of words, and padding.
    """

    def __init__(
        self,
        name: str,
        targets: Targets,
        split: str = "train",
        input: str = "image",
        client_column: str | None = None,
        max_length: Count = 40,
        vocabulary: Vocabulary = 4096,
    ) -> None:
        self.name = name
        self.targets = targets
        self.split = split
        self.input = input
        self.client_column = client_column
        self.max_length = max_length
        self.vocabulary = vocabulary

    def load(self, data: DataConfig) -> Dataset:
        """Load one split and one task per column of ``targets``.

        Inputs of text become word ids ``[n, max_length]``; images become ``[n, channels, height,
        width]`` and lists of numbers ``[n, k]`` float32, bytes scaled to 0..1.

        Raises:
            UserError: Flower Datasets is not installed, the dataset, the split or a column is
                not there, inputs differ in shape, or a label is wrong.
        """
        rows = _fetch(self.name, self.split)
        for column in [self.input, *self.targets, self.client_column]:
            if column is not None and column not in rows.column_names:
                raise choose("column", column, rows.column_names)
        labels = {
            name: read_labels(
                name,
                kind,
                [cell(value) for value in rows[name]],
                lambda i: f"{self.name}/{self.split}: row {i}",
                data.outputs.get(name),
            )
            for name, kind in self.targets.items()
        }
        owned = self.client_column is not None and data.partition == "natural"
        return Dataset(
            tuple(task for task, _ in labels.values()),
            Examples(self._inputs(list(rows[self.input])), {n: y for n, (_, y) in labels.items()}),
            owner=np.array([str(who) for who in rows[self.client_column]]) if owned else None,
        )

    def inputs(self, example: Tensor) -> Inputs:
        read = super().inputs(example)
        if read.dtype == "int64":
            words = Words(max_length=self.max_length, vocabulary=self.vocabulary)
            return read.model_copy(update={"words": words})
        return read.model_copy(update={"pixels": True})

    def _inputs(self, values: list[Any]) -> Tensor:
        if isinstance(values[0], str):
            return encode(values, self.max_length, self.vocabulary)
        return _arrays(f"{self.name}: {self.input!r}", values)


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


def _arrays(place: str, values: list[Any]) -> Tensor:
    arrays = [np.asarray(value) for value in values]
    for row, array in enumerate(arrays):
        if array.shape != arrays[0].shape or array.dtype.kind not in "buif":
            raise UserError(
                f"{place} of row {row} is no array of numbers of "
                f"shape {arrays[0].shape}; choose another data.source.options.input"
            )
    stacked = np.stack(arrays)
    x = torch.from_numpy(stacked.astype(np.float32) / (255 if stacked.dtype == np.uint8 else 1))
    if x.ndim == 1 or x.ndim == 3:
        return x[:, None]
    return x.movedim(-1, 1).contiguous() if x.ndim == 4 else x  # images come channels last
