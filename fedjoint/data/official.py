"""Which files, and which rows, are the data's own training, validation and test sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fedjoint.data.dataset import TEST, TRAIN, VALID
from fedjoint.data.files import Paths, find
from fedjoint.errors import UserError

WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "valid": VALID,
    "validation": VALID,
    "val": VALID,
    "dev": VALID,
    "test": TEST,
    "testing": TEST,
    "t10k": TEST,
}


def split_in(name: str) -> int | None:
    """Return the split that a file's name names, ``TREC.test.all`` say; None: it names none."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word in WORDS]
    return WORDS[words[-1]] if words else None


def splits_of(paths: Sequence[Path]) -> list[int]:
    """Return the split of each file by its name, where some are for training and some are not.

    Where their names do not say that, all files are for training, and clients make their own
    splits.

    Raises:
        UserError: the names of some files say, and those of others do not.
    """
    named = [split_in(path.name) for path in paths]
    if TRAIN not in named or not {VALID, TEST} & set(named):
        return [TRAIN] * len(paths)
    for path, split in zip(paths, named, strict=True):
        if split is None:
            raise UserError(
                f"{path}: other files are for training or test by their names, and this is "
                "neither; leave it out, or name it"
            )
    return [TRAIN if split is None else split for split in named]


def find_split(path: Paths, test_path: Paths | None, suffix: str = "") -> list[tuple[Path, int]]:
    """Return the files of ``path`` and ``test_path``, each with its split.

    Args:
        path: files and folders; see :func:`splits_of`.
        test_path: those of the test set; None: there is none, or ``path`` holds it.
        suffix: see :func:`fedjoint.data.files.find`.

    Raises:
        UserError: a file is not there, or there are two test sets.
    """
    paths = find(path, suffix=suffix)
    files = list(zip(paths, splits_of(paths), strict=True))
    if test_path is None:
        return files
    other = next((file for file, split in files if split == TEST), None)
    if other is not None:
        raise UserError(
            f"{other} is a test set by its name, and data.source.options.test_path names another; "
            "leave one of them out"
        )
    return files + [(file, TEST) for file in find(test_path, "test_path", suffix)]


def splits_in(column: str, cells: Sequence[str], where: Callable[[int], str]) -> np.ndarray:
    """Return ``[n]``, the split that each cell names: train, valid or test, or the like.

    Raises:
        UserError: a cell names none.
    """
    for row, word in enumerate(cells):
        if word.strip().lower() not in WORDS:
            raise UserError(
                f"{where(row)}: {column!r} is {word!r}, not train, valid or test; fix the row, or "
                "data.source.options.split_column"
            )
    return np.array([WORDS[word.strip().lower()] for word in cells], np.int64)
