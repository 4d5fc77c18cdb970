"""Handwritten digits: five tasks on the same 1,797 images, nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples, Federation
from fedjoint.data.dataset import Dataset
from fedjoint.data.source import Scaling, Source
from fedjoint.model.inputs import Inputs
from fedjoint.model.tasks import Task

TASKS = (
    Task("digit", "multiclass", 10),
    Task("parity", "multiclass", 2),  # odd: 1
    Task("loop", "multiclass", 2),  # the digit encloses an area: 0, 6, 8 and 9
    # Mean intensity, and row and column of its centre of mass: scaled below, by constants.
    Task("ink", "regression", 1, scale="none"),
    Task("centroid", "regression", 2, scale="none"),
)

# Which tasks the clients have, in turn, unless data.task_mix says otherwise.
MIX = [["digit"], ["parity"], ["loop"], ["centroid"], ["digit", "parity"], ["loop", "ink"]]

# Mean and standard deviation over all 1,797 images, to four digits. They are constants, so that
# clients scale their targets alike without sharing statistics.
INK = (0.3053, 0.03365)
CENTROID = ((3.4825, 3.5677), (0.3932, 0.2961))


GREY_LEVELS = 16  # of a pixel in scikit-learn's files


def _file() -> Path:
    """Return scikit-learn's copy of the digits; to import scikit-learn takes a second."""
    package = find_spec("sklearn")
    assert package and package.origin, "scikit-learn is a dependency"
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


@cache
def _table() -> np.ndarray:
    """``[1797, 65]``, read once: a comparison loads the digits for each of its runs."""
    table = np.loadtxt(_file(), delimiter=",")
    table.setflags(write=False)
    return table


def load() -> Dataset:
    """Load the digits; ``x`` is ``[1797, 64]`` float32 in 0..1, pixels row by row."""
    table = _table()
    pixels, digit = table[:, :-1], table[:, -1]
    x = (pixels / GREY_LEVELS).astype(np.float32)
    images = x.reshape(-1, 8, 8)
    places = np.arange(8, dtype=np.float32)
    weight = images.sum((1, 2))
    row = images.sum(2) @ places / weight
    column = images.sum(1) @ places / weight
    ink = (x.mean(1, keepdims=True) - INK[0]) / INK[1]
    centroid = (np.stack([row, column], 1) - CENTROID[0]) / CENTROID[1]
    labels = {
        "digit": digit.astype(np.int64),
        "parity": digit.astype(np.int64) % 2,
        "loop": np.isin(digit, (0, 6, 8, 9)).astype(np.int64),
        "ink": ink.astype(np.float32),
        "centroid": centroid.astype(np.float32),
    }
    y = {name: torch.from_numpy(label) for name, label in labels.items()}
    return Dataset(TASKS, Examples(torch.from_numpy(x), y))


class Digits(Source):
    """Five tasks on the 1,797 images of handwritten digits in scikit-learn."""

    def load(self, data: DataConfig) -> Dataset:
        """Load the digits; ``x`` is ``[1797, 64]`` float32 in 0..1, pixels row by row."""
        return load()

    def mix(self, names: Sequence[str]) -> Sequence[Sequence[str]]:
        return MIX

    def inputs(self, example: Tensor) -> Inputs:
        columns = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
        return super().inputs(example).model_copy(update={"columns": columns})

    def scaling(self, clients: Federation | None, places: Sequence[int]) -> Scaling:
        scale = torch.full((64,), float(GREY_LEVELS))
        return Scaling(torch.zeros(64), scale, f"grey levels from 0 to {GREY_LEVELS}")
