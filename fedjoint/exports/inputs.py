"""A user's file -> the inputs of a model."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.files import read_text
from fedjoint.data.idx import read_idx
from fedjoint.data.numpy_files import read_npy, read_npz
from fedjoint.data.tabular import read_table
from fedjoint.data.text import as_ids
from fedjoint.errors import UserError
from fedjoint.model.inputs import Description, Inputs
from fedjoint.model.tree import Input, check_tree


def read_inputs(path: Path, inputs: Description) -> Input:
    """Read ``[n, ...]`` inputs from a table (.csv, .tsv, .parquet), .npy, .txt or IDX file.

    A table has the model's columns, in any order; others are ignored. A .txt file has one
    sentence per line. A dict of tensors is read from .npz, which holds an array for each.

    Raises:
        UserError: the file is missing or malformed, or is not what the model reads.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file of inputs")
    if isinstance(inputs, dict):
        return _arrays(path, inputs)
    if path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        return _table(path, inputs)
    if path.suffix == ".npy":
        return _array(path, read_npy(path), inputs)
    if path.suffix == ".txt":
        return _sentences(path, inputs)
    if "idx" in path.name or path.suffix == ".gz":
        return _array(path, read_idx(path), inputs)
    raise UserError(f"{path}: unknown kind of file; give .csv, .tsv, .parquet, .npy, .txt or IDX")


def _table(path: Path, inputs: Inputs) -> Tensor:
    columns = inputs.columns
    if columns is None:
        raise UserError(f"{path}: the model reads no table, but {_wanted(inputs)}")
    table = read_table(path, None)
    for name in columns:
        if name not in table.columns:
            near = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
            hint = f"; is it {near[0]!r}?" if near else ""
            raise UserError(
                f"{path}:1: the header has no column {name!r}{hint}; the model reads "
                f"{len(columns)} columns, {columns[0]!r} to {columns[-1]!r}"
            )
    with np.errstate(over="ignore"):
        x = np.stack([table.numbers(name) for name in columns], 1).astype(np.float32)
    wrong = np.argwhere(~np.isfinite(x))
    if len(wrong):
        row, at = wrong[0].tolist()
        name = columns[at]
        raise UserError(
            f"{table.place(row)}: {name!r} is {table.columns[name][row]!r}, not a finite number"
        )
    return torch.from_numpy(x.reshape(-1, *inputs.shape))


def _sentences(path: Path, inputs: Inputs) -> Tensor:
    words = inputs.words
    if words is None:
        raise UserError(f"{path}: the model reads no text, but {_wanted(inputs)}")
    text = read_text(path, None).removesuffix("\n")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{path}:{number}: no words; write one sentence per line")
    return as_ids(lines, words)


def _arrays(path: Path, inputs: dict[str, Inputs]) -> Input:
    try:
        arrays = read_npz(path, inputs)
    except UserError as error:
        names = ", ".join(map(repr, inputs))
        raise UserError(f"{error}; the model reads .npz (numpy.savez) of arrays {names}") from None
    x = {name: _array(path, arrays[name], own) for name, own in inputs.items()}
    check_tree(x, f"{path}: its inputs")
    return x


def _array(path: Path, array: np.ndarray, inputs: Inputs) -> Tensor:
    shape = tuple(inputs.shape)
    if array.ndim == 3 and shape[:1] == (1,):
        array = array[:, None]  # grey images without a channel
    if array.shape[1:] != shape or not array.ndim or not len(array):
        raise UserError(f"{path}: an array of shape {array.shape}; the model reads [n, *{shape}]")
    if inputs.dtype == "int64":
        top = inputs.words.vocabulary if inputs.words else None
        if array.dtype.kind not in "ui" or (top and (array.min() < 0 or array.max() >= top)):
            limit = f" from 0 to {top - 1}" if top else ""
            raise UserError(f"{path}: the model reads whole numbers{limit}")
        return torch.from_numpy(array.astype(np.int64))
    if inputs.dtype == "bool":
        return torch.from_numpy(array.astype(bool))
    x = array.astype(np.float32)
    if inputs.pixels and array.dtype == np.uint8:
        x /= 255
    finite = np.isfinite(x.reshape(len(x), -1)).all(1)
    if not finite.all():
        raise UserError(f"{path}: row {finite.argmin()} (from 0) has a number that is not finite")
    return torch.from_numpy(x)


def _wanted(inputs: Inputs) -> str:
    if inputs.columns:
        return "numbers: give .csv or .npy"
    if inputs.words:
        return "sentences: give .txt"
    return f"arrays of shape {tuple(inputs.shape)}: give .npy or IDX"
