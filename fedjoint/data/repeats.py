"""Examples that are there twice: one of them may train, and the other test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from fedjoint.data.dataset import TEST, TRAIN, Dataset
from fedjoint.errors import UserError
from fedjoint.model.stream import loaded
from fedjoint.model.tree import named

_MANY = 10  # examples, of which two have to differ


def look_for_repeats(files: Sequence[Path], counts: Sequence[int], dataset: Dataset) -> list[str]:
    """Return what a user should know of examples that are there twice.

    Args:
        files: that were read, in the order of the examples.
        counts: examples of each.
        dataset: all examples.

    Raises:
        UserError: two files have the same examples, whatever their order and their packing, or all
            examples have the same inputs.
    """
    tensors = named(loaded(dataset.examples.x)).values()
    if len(dataset.examples) >= _MANY and all((x == x[:1]).all() for x in tensors):
        raise UserError(
            f"{files[0]}: all examples have the same inputs, which leaves nothing to learn; choose "
            "other inputs"
        )
    keys = _keys([*tensors, *dataset.examples.y.values()])
    _refuse_copies(files, np.split(keys, np.cumsum(counts)[:-1]))
    return list(_words(keys, dataset))


def _keys(tensors: Sequence[Tensor]) -> np.ndarray:
    """Return ``[n]`` int64, alike where the rows of all ``tensors`` are."""
    arrays = [tensor.reshape(len(tensor), -1).numpy() for tensor in tensors]
    rows = zip(*arrays, strict=True)
    return np.array([hash(tuple(part.tobytes() for part in row)) for row in rows], np.int64)


def _refuse_copies(files: Sequence[Path], parts: Sequence[np.ndarray]) -> None:
    seen: dict[bytes, Path] = {}
    for file, keys in zip(files, parts, strict=True):
        other = seen.setdefault(np.sort(keys).tobytes(), file)
        if other is not file:
            raise UserError(f"{file} holds the same examples as {other}; list one of them")


def _words(keys: np.ndarray, dataset: Dataset) -> Iterator[str]:
    tests, train = keys[dataset.rows(TEST)], keys[dataset.rows(TRAIN)]
    both = int(np.isin(tests, train).sum())
    if both:
        yield f"{both} test examples are training examples, too"
    repeated = len(train) - len(np.unique(train))
    if repeated:
        yield f"{repeated} examples repeat others, and may be in training and test data alike"
