"""Datasets of the Hugging Face hub, through Flower Datasets (an optional extra)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import Examples
from fedjoint.data.config import DataConfig
from fedjoint.data.dataset import Dataset
from fedjoint.data.labels import read_labels
from fedjoint.data.tabular import cell
from fedjoint.data.text import encode
from fedjoint.errors import UserError, choose


def load(config: DataConfig) -> Dataset:
    """Load one split and one task per column of ``data.targets``.

    Inputs of text become word ids ``[n, max_length]``; images become ``[n, channels, height,
    width]`` and lists of numbers ``[n, k]`` float32, bytes scaled to 0..1.

    Raises:
        UserError: Flower Datasets is not installed, the dataset, the split or a column is not
            there, inputs differ in shape, or a label is wrong.
    """
    hub = config.hub
    rows = _fetch(str(hub.name), hub.split)
    for name in [hub.input, *config.targets, config.client_column]:
        if name is not None and name not in rows.column_names:
            raise choose("column", name, rows.column_names)
    labels = {
        name: read_labels(
            name,
            kind,
            [cell(value) for value in rows[name]],
            lambda i: f"{hub.name}/{hub.split}: row {i}",
            config.outputs.get(name),
        )
        for name, kind in config.targets.items()
    }
    owner = config.owner_column
    return Dataset(
        tuple(task for task, _ in labels.values()),
        Examples(_inputs(list(rows[hub.input]), config), {n: y for n, (_, y) in labels.items()}),
        owner=np.array([str(name) for name in rows[owner]]) if owner else None,
    )


def _fetch(name: str, split: str) -> Any:
    try:
        from flwr_datasets import FederatedDataset
    except ImportError:
        raise UserError("source = 'hub' needs flwr-datasets; pip install 'fedjoint[hub]'") from None
    try:
        # One partition: clients are divided by data.partition, as with every other source.
        rows = FederatedDataset(dataset=name, partitioners={split: 1}).load_split(split)
    except Exception as error:  # its own errors, and any of the network, the hub and the files
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"cannot load split {split!r} of hub dataset {name!r}: {first}") from None
    if not len(rows):
        raise UserError(f"split {split!r} of hub dataset {name!r} has no rows; set data.hub.split")
    return rows


def _inputs(values: list[Any], config: DataConfig) -> Tensor:
    if isinstance(values[0], str):
        return encode(values, config.max_length, config.vocabulary)
    arrays = [np.asarray(value) for value in values]
    for row, array in enumerate(arrays):
        if array.shape != arrays[0].shape or array.dtype.kind not in "buif":
            raise UserError(
                f"{config.hub.name}: {config.hub.input!r} of row {row} is no array of numbers of "
                f"shape {arrays[0].shape}; choose another data.hub.input"
            )
    stacked = np.stack(arrays)
    x = torch.from_numpy(stacked.astype(np.float32) / (255 if stacked.dtype == np.uint8 else 1))
    if x.ndim == 1 or x.ndim == 3:
        return x[:, None]
    return x.movedim(-1, 1).contiguous() if x.ndim == 4 else x  # images come channels last
