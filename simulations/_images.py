"""Images that scenarios derive tasks from, read once by a process."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow.parquet
import torch
from torch import Tensor

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
