"""Images and labels in the IDX format of MNIST, plain or gzipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import Dataset
from fedjoint.data.files import find
from fedjoint.data.idx import read_idx
from fedjoint.data.labels import read_labels
from fedjoint.data.source import Source
from fedjoint.errors import UserError
from fedjoint.model.inputs import Inputs


class Idx(Source):
    """Images of one class each, in the files of MNIST and its like.

    Args:
        path: images and labels, alternating, as a list; or a folder whose file names have
            ``images`` and ``labels`` in them (``train-images-idx3-ubyte.gz``).
    """

    def __init__(self, path: str | list[str]) -> None:
        self.path = path

    def load(self, data: DataConfig) -> Dataset:
        """Load the task ``label``; ``x`` is ``[n, 1, height, width]`` (bytes scaled to 0..1).

        ``path`` gives images and labels, alternating, as a list, or a folder whose file names
        have ``images`` and ``labels`` in them (``train-images-idx3-ubyte.gz``). Several pairs are
        joined. Arrays of two dimensions are taken as features, of four as channels first.

        Raises:
            UserError: a file is missing or malformed, or images and labels do not match.
        """
        inputs: list[np.ndarray] = []
        cells: list[str] = []
        places: list[str] = []
        for images, labels in _pairs(self.path):
            pixels, classes = read_idx(images), read_idx(labels)
            if pixels.ndim < 2 or classes.ndim != 1 or classes.dtype.kind == "f":
                raise UserError(f"{images} and {labels}: not images and classes; check their order")
            if len(pixels) != len(classes):
                raise UserError(
                    f"{images} has {len(pixels)} images, but {labels} has {len(classes)} labels"
                )
            if not pixels.size:
                raise UserError(f"{images}: the file has no images; check data.source.options.path")
            if inputs and pixels.shape[1:] != inputs[0].shape[1:]:
                raise UserError(
                    f"{images}: shape {pixels.shape[1:]} differs from {inputs[0].shape[1:]}"
                )
            inputs.append(pixels)
            cells += [str(label) for label in classes]
            places += [f"{labels}: item {i}" for i in range(len(classes))]
        stacked = np.concatenate(inputs)
        scale = 255 if stacked.dtype == np.uint8 else 1
        x = torch.from_numpy(stacked.astype(np.float32) / scale)
        task, targets = read_labels(
            "label", "multiclass", cells, places.__getitem__, data.outputs.get("label")
        )
        return Dataset((task,), Examples(x[:, None] if x.ndim == 3 else x, {"label": targets}))

    def inputs(self, example: Tensor) -> Inputs:
        return super().inputs(example).model_copy(update={"pixels": True})


def _pairs(path: str | list[str]) -> list[tuple[Path, Path]]:
    paths = find(path)
    if isinstance(path, str):
        images = [file for file in paths if "images" in file.name]
        by_name = {file.name: file for file in paths}
        names = [f.name.replace("images", "labels").replace("idx3", "idx1") for f in images]
        for file, name in zip(images, names, strict=True):
            if name not in by_name:
                raise UserError(f"{file}: its labels, {name}, are not beside it; list both files")
        pairs = [(file, by_name[name]) for file, name in zip(images, names, strict=True)]
    elif len(paths) % 2:
        raise UserError(f"path lists {len(paths)} files; list images and labels, alternating")
    else:
        pairs = list(zip(paths[::2], paths[1::2], strict=True))
    if not pairs:
        raise UserError(f"{path}: no file with 'images' in its name; list images and labels")
    return pairs
