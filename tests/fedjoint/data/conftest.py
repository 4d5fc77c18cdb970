"""Shared data for the tests of the data layer."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.model.tasks import Task


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data, kept outside the repository."""
    root = os.environ.get("FEDJOINT_DATA") or Path(__file__).parents[4] / "shared" / "data"
    if not Path(root).is_dir():
        pytest.skip(f"no {root}: set FEDJOINT_DATA to the folder with the real data")
    return Path(root)


@pytest.fixture
def shared_text(shared_data) -> Path:
    """Its folder of text tasks."""
    return shared_data / "text"


@pytest.fixture
def two_tasks() -> Dataset:
    """120 examples whose input is their own position, with a class and a number each."""
    rng = np.random.default_rng(5)
    kind = torch.from_numpy(rng.integers(0, 4, 120))
    size = torch.from_numpy(rng.standard_normal((120, 1))).float()
    x = torch.arange(120.0)[:, None]
    tasks = (Task("kind", "multiclass", 4), Task("size", "regression", 1))
    return Dataset(tasks, Examples(x, {"kind": kind, "size": size}))
