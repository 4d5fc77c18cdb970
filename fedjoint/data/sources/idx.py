"""Images and labels in the IDX format of MNIST, plain or gzipped."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Examples
from fedjoint.data.dataset import TEST, Dataset
from fedjoint.data.files import Paths, find, refuse_repeats
from fedjoint.data.idx import read_idx
from fedjoint.data.labels import read_labels
from fedjoint.data.official import splits_of
from fedjoint.data.pixels import scaled
from fedjoint.data.reading import say
from fedjoint.data.repeats import look_for_repeats
from fedjoint.data.source import Source
from fedjoint.errors import UserError
from fedjoint.model.inputs import Inputs


class Idx(Source):
    """Images of one class each, in the files of MNIST and its like.

    Args:
        path: images and labels, alternating, as a list; or a folder whose file names have
            ``images`` and ``labels`` in them (``train-images-idx3-ubyte.gz``). Beside training
            files, those of a name with ``t10k`` or ``test`` stay the test set.
        test_path: images and labels of a test set, in the same way.
    """

    def __init__(self, path: Paths, test_path: Paths | None = None) -> None:
        self.path = path
        self.test_path = test_path

    def load(self, data: DataConfig) -> Dataset:
        """Load the task ``label``; ``x`` is ``[n, 1, height, width]`` (bytes scaled to 0..1).

        Several pairs are joined. Arrays of two dimensions are taken as features, of four as
        channels first.

        Raises:
            UserError: a file is missing or malformed, images and labels do not match, or pixels
                are not all of one type and finite.
        """
        pairs = self._pairs()
        refuse_repeats(images for images, _, _ in pairs)
        inputs: list[np.ndarray] = []
        cells: list[str] = []
        places: list[str] = []
        for images, labels, _ in pairs:
            pixels, classes = _read(images, labels)
            if inputs and (pixels.shape[1:], pixels.dtype) != (
                inputs[0].shape[1:],
                inputs[0].dtype,
            ):
                raise UserError(
                    f"{images}: {pixels.dtype.name} of shape {pixels.shape[1:]}, and "
                    f"{pairs[0][0]} has {inputs[0].dtype.name} of shape {inputs[0].shape[1:]}; "
                    "join files of one kind"
                )
            inputs.append(pixels)
            cells += [str(label) for label in classes]
            places += [f"{labels}: item {i}" for i in range(len(classes))]
        stacked = np.concatenate(inputs)
        task, targets = read_labels(
            "label", "multiclass", cells, places.__getitem__, data.outputs.get("label")
        )
        x = torch.from_numpy(scaled(stacked, str(pairs[0][0])))
        splits = np.repeat([split for _, _, split in pairs], [len(each) for each in inputs])
        dataset = Dataset(
            (task,),
            Examples(x[:, None] if x.ndim == 3 else x, {"label": targets}),
            split=splits if splits.any() else None,
        )
        self._stored = stacked.dtype.name
        shape = " x ".join(map(str, stacked.shape[1:]))
        files = [images for images, _, _ in pairs]
        say(
            files,
            dataset,
            inputs=f"{stacked.dtype.name} of {shape}",
            notes=look_for_repeats(files, [len(each) for each in inputs], dataset),
        )
        return dataset

    def inputs(self, example: Tensor) -> Inputs:
        own = {"pixels": True, "stored": self._stored}
        return super().inputs(example).model_copy(update=own)

    @cached_property
    def _stored(self) -> str:  # which load() knows
        images, _, _ = self._pairs()[0]  # all files are of one type
        return read_idx(images).dtype.name

    def _pairs(self) -> list[tuple[Path, Path, int]]:
        """Return the files of images and of labels, and the split of each pair."""
        pairs = _pairs(self.path, "path")
        splits = splits_of([images for images, _ in pairs])
        both = [(*pair, split) for pair, split in zip(pairs, splits, strict=True)]
        if self.test_path is None:
            return both
        if any(splits):
            raise UserError(
                f"{self.path} holds a test set, and data.source.options.test_path names another; "
                "leave one of them out"
            )
        return both + [(*pair, TEST) for pair in _pairs(self.test_path, "test_path")]


def _read(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a pair of files."""
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim < 2 or classes.ndim != 1 or classes.dtype.kind == "f":
        raise UserError(f"{images} and {labels}: not images and classes; check their order")
    if len(pixels) != len(classes):
        raise UserError(
            f"{images} has {len(pixels)} images, but {labels} has {len(classes)} labels"
        )
    if not pixels.size:
        raise UserError(f"{images}: the file has no images; check data.source.options.path")
    return pixels, classes


def _pairs(path: Paths, option: str) -> list[tuple[Path, Path]]:
    paths = find(path, option)
    if isinstance(path, str):
        images = [file for file in paths if "images" in file.name]
        by_name = {file.name: file for file in paths}
        names = [f.name.replace("images", "labels").replace("idx3", "idx1") for f in images]
        for file, name in zip(images, names, strict=True):
            if name not in by_name:
                raise UserError(f"{file}: its labels, {name}, are not beside it; list both files")
        pairs = [(file, by_name[name]) for file, name in zip(images, names, strict=True)]
    elif len(paths) % 2:
        raise UserError(f"{option} lists {len(paths)} files; list images and labels, alternating")
    else:
        pairs = list(zip(paths[::2], paths[1::2], strict=True))
    if not pairs:
        raise UserError(f"{path}: no file with 'images' in its name; list images and labels")
    return pairs
