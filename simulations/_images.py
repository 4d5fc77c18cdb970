"""Images that scenarios derive tasks from, read once by a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pyarrow.parquet
import torch
from torch import Tensor

import fedjoint
from fedjoint.data.dataset import TEST, TRAIN
from fedjoint.data.files import find
from fedjoint.data.idx import read_idx
from fedjoint.data.pixels import decode

from ._data import cifar, mnist

Images = tuple[Tensor, Tensor]


@cache
def digits(count: int, *, test: bool) -> Images:
    """Return the first images ``[count, 1, 28, 28]`` of MNIST in 0..1, and their digits.

    Raises:
        UserError: the files are not there.
    """
    pixels, labels = map(read_idx, find(mnist(test)))
    x = torch.from_numpy(pixels[:count].astype(np.float32) / 255)
    return x[:, None], torch.from_numpy(labels[:count].astype(np.int64))


@cache
def objects(count: int, *, test: bool) -> Images:
    """Return the first images ``[count, 3, 32, 32]`` of CIFAR-10 in 0..1, and their classes.

    Raises:
        UserError: the file is not there, or Pillow is not.
    """
    (path,) = find(cifar(test))
    table = pyarrow.parquet.read_table(path).slice(0, count)
    x = decode(table["img"].to_pylist(), str(path))
    return x, torch.tensor(table["label"].to_pylist())


def dataset(
    tasks: Sequence[fedjoint.Task], parts: Sequence[tuple[Tensor, Mapping[str, Tensor], bool]]
) -> fedjoint.Dataset:
    """Return the examples of all parts; a task without labels in a part has none there.

    Args:
        tasks: the tasks.
        parts: inputs, labels of some tasks, and whether they are the test set.
    """
    x = torch.cat([inputs for inputs, _, _ in parts])
    y = {
        task.name: torch.cat([own.get(task.name, task.missing(len(x))) for x, own, _ in parts])
        for task in tasks
    }
    split = np.concatenate([np.full(len(x), TEST if test else TRAIN) for x, _, test in parts])
    names = sorted({name for _, own, _ in parts for name in own})
    origins = [tuple(name in own for name in names) for _, own, _ in parts]
    kinds = list(dict.fromkeys(origins))
    origin = np.repeat([kinds.index(o) for o in origins], [len(x) for x, _, _ in parts])
    return fedjoint.Dataset(tuple(tasks), fedjoint.Examples(x, y), origin, split=split)
