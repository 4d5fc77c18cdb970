"""Flower records around tensors, without copies where the message stays in the machine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord
from torch import Tensor


class Array(FlowerArray):
    """A Flower array over a NumPy array; the bytes are made only if Flower sends them.

    Pickling hands the NumPy array on out of band, so Ray's workers read it in place. It bears
    the name of Flower's class, by which Flower finds what to unpack a message into.
    """

    def __init__(self, values: np.ndarray):
        self._values = values
        self.dtype, self.shape, self.stype = str(values.dtype), values.shape, "numpy.ndarray"

    @property
    def data(self) -> bytes:  # type: ignore[override]
        buffer = BytesIO()
        np.save(buffer, self._values, allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> np.ndarray:
        return self._values

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self._values,)


def to_record(arrays: Mapping[str, Tensor | np.ndarray]) -> ArrayRecord:
    """Wrap named tensors or arrays; CPU memory is shared, not copied."""
    record = ArrayRecord()
    for name, values in arrays.items():
        if isinstance(values, Tensor):
            values = values.detach().cpu().numpy()
        # One by one: a record made of a dict copies every array, as bytes.
        record[name] = Array(np.asarray(values, order="C"))
    return record


def to_arrays(record: Mapping[str, FlowerArray]) -> dict[str, np.ndarray]:
    """Return the NumPy arrays of a record, by name (maybe read-only)."""
    return {name: array.numpy() for name, array in record.items()}


def to_tensor(values: np.ndarray) -> Tensor:
    """Return ``values`` as a tensor that nobody writes to; memory is shared."""
    if values.flags.writeable:
        return torch.from_numpy(values)
    # PyTorch has no read-only tensors and warns; callers of this function only read.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)
