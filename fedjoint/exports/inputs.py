"""A user's file -> the inputs of a model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.cells import stacked
from fedjoint.data.columns import is_text
from fedjoint.data.files import read_text
from fedjoint.data.idx import read_idx
from fedjoint.data.numpy_files import array_names, read_npy, read_npz
from fedjoint.data.pixels import decode
from fedjoint.data.tabular import parquet_names, read_parquet, read_table
from fedjoint.data.text import as_ids
from fedjoint.errors import UserError
from fedjoint.model.inputs import Description, Inputs
from fedjoint.model.ragged import padded
from fedjoint.model.tree import Input, check_tree, like

#: name of a tensor of an input -> what is read; one on its own has the name ``""``
Parts = dict[str, Inputs]


def read_inputs(path: Path, inputs: Description) -> Input:
    """Read ``[n, ...]`` inputs from a table, .npy, .npz, .parquet, .txt or IDX file.

    A table (.csv, .tsv, .parquet) has the model's columns, in any order; others are ignored. A .txt
    file has one sentence per line. A dict of tensors is read from .npz or .parquet, of which each
    is an array or a column; one tensor on its own may be, too. Lists, and arrays, that are shorter
    than what the model reads are filled up where its problem says by what.

    Raises:
        UserError: the file is missing or malformed, or is not what the model reads.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file of inputs")
    parts: Parts = inputs if isinstance(inputs, dict) else {"": inputs}
    suffix = path.suffix.lower()
    if suffix == ".npz":
        found = _npz(path, parts)
    elif suffix == ".parquet" and not _is_table(path, inputs):
        found = _parquet(path, parts)
    elif isinstance(inputs, dict):
        raise UserError(f"{path}: unknown kind of file; {_names(parts)}")
    else:
        return _one(path, suffix, inputs)
    return _filled(path, found, parts)


def _one(path: Path, suffix: str, inputs: Inputs) -> Input:
    """Read inputs of one tensor from a file that holds nothing else."""
    if suffix in (".csv", ".tsv", ".parquet"):
        return _table(path, inputs)
    if suffix == ".txt":
        return _sentences(path, inputs)
    if suffix == ".npy":
        array = read_npy(path)
    elif "idx" in path.name or suffix == ".gz":
        array = read_idx(path)
    else:
        raise UserError(
            f"{path}: unknown kind of file; give .csv, .tsv, .parquet, .npy, .npz, .txt or IDX"
        )
    return _filled(path, {"": _array(str(path), array, inputs)}, {"": inputs})


def _is_table(path: Path, inputs: Description) -> bool:
    """Whether a Parquet file has a column for each number, and none for the whole input."""
    if isinstance(inputs, dict) or inputs.columns is None:
        return False
    names = parquet_names(path)
    return inputs.name not in names and (inputs.columns[0] in names or len(names) > 1)


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


def _npz(path: Path, parts: Parts) -> dict[str, Tensor]:
    try:
        places = _places(path, parts, array_names(path))
        arrays = read_npz(path, places.values())
    except UserError as error:
        raise UserError(f"{error}; {_names(parts)}") from None
    return {
        name: _array(_where(path, name), arrays[place], parts[name])
        for name, place in places.items()
    }


def _parquet(path: Path, parts: Parts) -> dict[str, Tensor]:
    table = read_parquet(path)
    if not table.num_rows:
        raise UserError(f"{path}: the table has no rows")
    places = _places(path, parts, table.column_names)
    columns = {name: table[place].to_pylist() for name, place in places.items()}
    _check_lengths(path, columns, parts)
    return {name: _column(_where(path, name), columns[name], parts[name]) for name in parts}


def _places(path: Path, parts: Parts, names: Sequence[str]) -> dict[str, str]:
    """Return which of the arrays or columns of a file each tensor is.

    Raises:
        UserError: one is not there, or nobody can say which it is.
    """
    if "" not in parts:
        missing = [name for name in parts if name not in names]
        if missing:
            raise UserError(f"{path}: no {missing[0]!r}; {_names(parts)}")
        return {name: name for name in parts}
    own = parts[""].name
    if own in names and own is not None:
        return {"": own}
    if len(names) != 1:
        what = "one" if own is None else repr(own)
        raise UserError(f"{path}: it has {', '.join(map(repr, names))}; the model reads {what}")
    return {"": names[0]}


def _column(where: str, values: list[Any], inputs: Inputs) -> Tensor:
    for row, value in enumerate(values):
        if value is None:
            raise UserError(f"{where}: row {row} (from 0) is empty; leave the row out")
    first = values[0]
    if is_text(first):
        return _texts(where, values, inputs)
    if inputs.name is not None and inputs.pad is not None:  # cut, as the run's own were
        most = inputs.shape[0]
        values = [value[:most] if isinstance(value, list) else value for value in values]
    if isinstance(first, bytes | dict):
        return _array(where, _images(where, values, inputs), inputs)
    fill = 0.0 if inputs.pad is None else inputs.pad
    array = stacked(values, where, fill if inputs.pad is not None else None, _must(inputs))
    return _array(where, array, inputs)


def _texts(where: str, values: list[Any], inputs: Inputs) -> Tensor:
    """Return the ids of texts, of lists of words or, where one is preferred, of lists of texts."""
    if inputs.words is None:
        raise UserError(f"{where}: the model reads no text, but {_wanted(inputs)}")
    for row, value in enumerate(values):
        wrong = not is_text(value) or (inputs.items and len(value) != inputs.shape[0])
        if wrong or (isinstance(value, str) and not value.strip()):
            what = f"a list of {inputs.shape[0]} texts" if inputs.items else "words"
            raise UserError(f"{where}: row {row} (from 0) is {value!r}; give {what}")
    texts = [text for value in values for text in value] if inputs.items else values
    return as_ids(texts, inputs.words).view(-1, *inputs.shape)


def _images(where: str, values: list[Any], inputs: Inputs) -> np.ndarray:
    images = decode(values, where).numpy()
    grey = images.shape[1] == 1 and inputs.shape[:1] == (3,)
    return images.repeat(3, 1) if grey else images


def _check_lengths(path: Path, columns: dict[str, list[Any]], parts: Parts) -> None:
    """Refuse lists of a row that have not one length, where the model reads one of both."""
    ragged = [name for name, own in parts.items() if own.pad is not None]
    for name, other in zip(ragged[1:], ragged, strict=False):
        if parts[name].shape[0] != parts[other].shape[0]:
            continue
        for row, pair in enumerate(zip(columns[name], columns[other], strict=True)):
            if all(isinstance(value, list) for value in pair) and len(pair[0]) != len(pair[1]):
                raise UserError(
                    f"{path}: row {row} (from 0): {name!r} has the length {len(pair[0])}, and "
                    f"{other!r} {len(pair[1])}: give them one length"
                )


def _filled(path: Path, found: dict[str, Tensor], parts: Parts) -> Input:
    """Return inputs as long as the model reads them."""
    x: Input = found.get("", found)
    check_tree(x, f"{path}: its inputs")
    pad = {name: own.pad for name, own in parts.items() if own.pad is not None}
    example = like({name: zeros(own) for name, own in parts.items()}, x)
    return padded(x, example, pad, f"{path}: its inputs")


def zeros(inputs: Inputs) -> Tensor:
    """Return ``[1, ...]``, an input of nothing but zeros."""
    return torch.zeros(1, *inputs.shape, dtype=getattr(torch, inputs.dtype))


def _array(where: str, array: np.ndarray, inputs: Inputs) -> Tensor:
    shape = tuple(inputs.shape)
    if not array.ndim or not len(array):
        raise UserError(f"{where}: no rows; {_must(inputs)}")
    if len(shape) == 3 and shape[0] == 1 and array.ndim == 3:
        array = array[:, None]  # grey images without a channel
    if shape == (1,) and array.ndim == 1:
        array = array[:, None]
    has = array.shape[1:]
    shorter = inputs.pad is not None and len(has) == len(shape) > 0 and has[0] <= shape[0]
    if has != shape and not (shorter and has[1:] == shape[1:]):
        raise UserError(f"{where}: an array of shape {array.shape}; {_must(inputs)}")
    if inputs.dtype == "bool":
        if not np.isin(array, (0, 1)).all():
            raise UserError(f"{where}: {_must(inputs)}; a mask is of true and false, or of 0 and 1")
        return torch.from_numpy(array.astype(bool))
    dtype: torch.dtype = getattr(torch, inputs.dtype)
    read = _real if dtype.is_floating_point else _whole
    return read(where, array, inputs, dtype)


def _whole(where: str, array: np.ndarray, inputs: Inputs, dtype: torch.dtype) -> Tensor:
    known = inputs.words.vocabulary if inputs.words else inputs.vocabulary
    limits = torch.iinfo(dtype)
    least, most = (0, known - 1) if known else (limits.min, limits.max)
    limit = f" from {least} to {most}" if known or dtype != torch.int64 else ""
    if array.dtype.kind not in "ui":
        raise UserError(f"{where}: the model reads whole numbers{limit}, not {array.dtype.name}")
    wrong = (array < least) | (array > most)
    if wrong.any():
        row = int(wrong.reshape(len(array), -1).any(1).argmax())
        number = int(array[row][wrong[row]].flat[0])
        raise UserError(
            f"{where}: row {row} (from 0) has {number}; the model reads whole numbers{limit}"
        )
    return torch.from_numpy(array.astype(np.int64)).to(dtype)


def _real(where: str, array: np.ndarray, inputs: Inputs, dtype: torch.dtype) -> Tensor:
    with np.errstate(over="ignore"):
        x: Any = array.astype(np.float64 if dtype == torch.float64 else np.float32)
    finite = np.isfinite(x.reshape(len(x), -1)).all(1)
    if not finite.all():
        raise UserError(f"{where}: row {finite.argmin()} (from 0) has a number that is not finite")
    if _of_bytes(where, array, inputs):
        x /= 255
    return torch.from_numpy(x).to(dtype)


def _of_bytes(where: str, array: np.ndarray, inputs: Inputs) -> bool:
    """Say whether numbers are pixels from 0 to 255, which the model reads from 0 to 1.

    Raises:
        UserError: the run's own pixels were bytes, and a number can be neither.
    """
    if not inputs.pixels:
        return False
    if inputs.stored != "uint8":
        whole = inputs.stored is not None and np.dtype(inputs.stored).kind in "iu"
        return array.dtype == np.uint8 and not whole  # such a run's own were not divided
    whole = array.dtype.kind in "iu"
    most = 255 if whole else 1
    wrong = (array < 0) | (array > most)
    if wrong.any():
        row = int(wrong.reshape(len(array), -1).any(1).argmax())
        number = array[row][wrong[row]].flat[0].item()
        raise UserError(
            f"{where}: row {row} (from 0) has {number:.6g}; the model reads pixels, whole numbers "
            "from 0 to 255 or real ones from 0 to 1: give them so, not scaled otherwise"
        )
    return whole


def _where(path: Path, name: str) -> str:
    return f"{path}: {name!r}" if name else str(path)


def _names(parts: Parts) -> str:
    """Say what a file of several tensors holds."""
    if "" in parts:
        return _must(parts[""])
    names = ", ".join(map(repr, parts))
    return f"the model reads .npz (numpy.savez) of arrays {names}, or .parquet of such columns"


def _must(inputs: Inputs) -> str:
    shape = tuple(inputs.shape)
    if inputs.pad is not None:
        return f"the model reads [n, *{shape}], or shorter ones"
    return f"the model reads [n, *{shape}]"


def _wanted(inputs: Inputs) -> str:
    if inputs.columns:
        return "numbers: give .csv or .npy"
    if inputs.words:
        return "sentences: give .txt"
    return f"arrays of shape {tuple(inputs.shape)}: give .npy, .npz, .parquet or IDX"
