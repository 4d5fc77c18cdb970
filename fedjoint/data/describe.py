"""What a data source says about itself to someone who has a file: inputs and classes."""

from __future__ import annotations

from typing import Literal

from sklearn.datasets import load_digits
from torch import Tensor

from fedjoint.config.section import Section
from fedjoint.data import tabular, text
from fedjoint.data.config import DataConfig
from fedjoint.data.labels import class_names
from fedjoint.model.tasks import Task


class Words(Section):
    """How sentences become word ids, see :func:`fedjoint.data.text.encode`."""

    max_length: int
    vocabulary: int


class Inputs(Section):
    """One input of a model, and how a file has it.

    Attributes:
        shape: of the input.
        dtype: ``int64`` for ids, else ``float32``.
        columns: names of the features in a table; None where a table cannot hold the input.
        words: where the input is a sentence.
        pixels: whether bytes are divided by 255.
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"]
    columns: list[str] | None = None
    words: Words | None = None
    pixels: bool = False


def inputs(config: DataConfig | None, example: Tensor) -> Inputs:
    """Describe the inputs of a source.

    Args:
        config: the source; None for data that no configuration describes.
        example: ``[1, ...]`` one input.

    Raises:
        UserError: a file of the source is gone or changed.
    """
    shape = tuple(example.shape[1:])
    source = config.source if config else None
    if not example.is_floating_point():
        words = None
        if config and source in ("text", "hub"):
            words = Words(max_length=config.max_length, vocabulary=config.vocabulary)
        return Inputs(shape=shape, dtype="int64", words=words)
    columns: list[str] | None = None
    if source == "digits":
        columns = list(load_digits().feature_names)
    elif config and source == "csv":
        columns = tabular.feature_columns(tabular.read(config), config)
    elif len(shape) == 1:
        columns = [f"x{i}" for i in range(shape[0])]
    return Inputs(shape=shape, dtype="float32", columns=columns, pixels=source in ("idx", "hub"))


def classes(config: DataConfig | None, task: Task) -> list[str] | None:
    """Return the names of a task's classes by number; None where they have none.

    Those of a dataset of the hub are not looked up.

    Raises:
        UserError: a file of the source is gone or changed.
    """
    if config is None or task.kind != "multiclass":
        return None
    if config.source == "csv":
        return class_names(tabular.read(config).columns[task.name])
    if config.source == "text":
        return class_names([label for label, _, _ in text.read(config)[task.name]])
    return None
