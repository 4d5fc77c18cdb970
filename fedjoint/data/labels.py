"""Cells of text -> the labels of a task."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.numbers import float32, means_missing, number
from fedjoint.errors import UserError, choose
from fedjoint.model.tasks import KINDS, Task

Where = Callable[[int], str]  # position of an example -> file:line

#: column or file -> kind of task
Targets = dict[str, str]

#: kinds of task of which a cell of text holds a label
CELLS = ("multiclass", "multilabel", "regression")

_MANY = 10  # labels, of which two have to be alike


def check_kinds(targets: Targets, allowed: Collection[str]) -> None:
    """Make sure that targets are of kinds of task that a source can hold.

    Args:
        targets: the option of the source.
        allowed: kinds that it holds.

    Raises:
        UserError: there is no such kind, or its labels are nothing for a cell.
    """
    for name, kind in targets.items():
        if kind not in KINDS:
            raise choose(f"kind of task {name!r}", kind, allowed)
        if kind not in allowed:
            raise UserError(
                f"a cell holds no label of {name!r}, which is {kind}: take the data source parquet "
                "(lists of numbers) or npz (arrays)"
            )


def read_labels(
    name: str,
    kind: str,
    cells: Sequence[str],
    where: Where,
    outputs: int | None = None,
    missing: Collection[str] | None = None,
) -> tuple[Task, Tensor]:
    """Read the labels of one task. An empty cell is a missing label.

    A ``multiclass`` cell is a class from 0 or, where no cell is a number, any text: classes are
    then numbered in sorted order. A ``multilabel`` or ``regression`` cell has one or more numbers
    with spaces between; those of a multilabel task are 0 or 1.

    Args:
        name: of the task.
        kind: of the task.
        cells: ``n`` texts.
        where: names the file and line of a cell in errors.
        outputs: declared number of classes, labels or targets; None: as many as there are.
        missing: words that mean a missing label, too; None: no word does, and one such as NA, of
            which nobody can say what it means, is refused.

    Raises:
        UserError: a cell is malformed, ambiguous or disagrees with ``outputs``, no cell is filled,
            or no number of classes was declared and a class below the largest never occurs.
    """
    cells = blanked(name, cells, where, missing)
    filled = [i for i, cell in enumerate(cells) if cell]
    if not filled:
        raise UserError(f"{where(0)}: task {name!r} has no labels; leave it out")
    if kind == "multiclass":
        return _classes(name, cells, filled, where, outputs)
    return _vectors(name, kind, cells, filled, where, outputs)


def blanked(
    name: str, cells: Sequence[str], where: Where, missing: Collection[str] | None
) -> list[str]:
    """Return the cells without white space around them, and empty where a value is missing.

    The arguments are those of :func:`read_labels`.

    Raises:
        UserError: nobody can say whether a cell is a missing value.
    """
    stripped = [cell.strip() for cell in cells]
    if missing is not None:
        words = {word.strip() for word in missing}
        return ["" if cell in words else cell for cell in stripped]
    doubtful = {cell for cell in set(stripped) if means_missing(cell)}
    if doubtful:
        row = next(i for i, cell in enumerate(stripped) if cell in doubtful)
        raise UserError(
            f"{where(row)}: {name!r} is {stripped[row]!r}: a missing value, or not? If so, set "
            f"data.source.options.missing = [{stripped[row]!r}] or leave the cell empty; if not, "
            "set it to []"
        )
    return stripped


def refuse_look_alikes(what: str, values: Collection[str]) -> None:
    """Refuse two values that differ in a way that nobody means, such as ``Yes`` and ``yes``.

    Args:
        what: they are, for errors.
        values: distinct texts.

    Raises:
        UserError: there are two; the line names them.
    """
    seen: dict[object, str] = {}
    for value in sorted(values):
        plain = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
        as_number = number(plain)
        other = seen.setdefault(plain if as_number is None else as_number, value)
        if other != value:
            raise UserError(
                f"{what} has {other!r} and {value!r}: one, or two? Write one alike everywhere, or "
                "name two differently"
            )


def class_names(cells: Sequence[str], missing: Collection[str] | None = None) -> list[str] | None:
    """Return the names of the classes of a ``multiclass`` task by number; None: they have none.

    Args:
        cells: as for :func:`read_labels`, which took them.
        missing: as for :func:`read_labels`.
    """
    words = {word.strip() for word in missing or ()}
    names = {cell.strip() for cell in cells} - words - {""}
    return None if any(number(name) is not None for name in names) else sorted(names) or None


def _classes(
    name: str, cells: Sequence[str], filled: list[int], where: Where, outputs: int | None
) -> tuple[Task, Tensor]:
    y = np.full(len(cells), -1, np.int64)
    distinct = {cells[i] for i in filled}
    if any(number(cell) is not None for cell in distinct):
        classes_of = {cell: _class(cell) for cell in distinct}
        for i in filled:
            of = classes_of[cells[i]]
            if of is None:
                raise UserError(
                    f"{where(i)}: label {cells[i]!r} of {name!r} is not a class from 0; give all "
                    "classes as whole numbers, or all as words"
                )
            y[i] = of
    else:
        refuse_look_alikes(f"{where(filled[0])}: task {name!r}", distinct)
        # Text classes are numbered after all are seen, so that the order of lines is no matter.
        y[filled] = np.unique([cells[i] for i in filled], return_inverse=True)[1]
    classes = int(y.max()) + 1
    if outputs is None and classes == 1:
        raise UserError(
            f"{where(filled[0])}: {name!r} is {cells[filled[0]]!r} everywhere, which leaves "
            f"nothing to learn; leave it out, or declare data.outputs.{name}"
        )
    if outputs is None and len(distinct) == len(filled) >= _MANY:
        raise UserError(
            f"{where(filled[0])}: every label of {name!r} is a class of its own, {len(distinct)} "
            f"in all: an id or a text is no class; choose another, or declare data.outputs.{name}"
        )
    if outputs is None:
        _refuse_gaps(name, y, where)
    elif classes > outputs:
        first = int((y >= outputs).argmax())
        raise UserError(
            f"{where(first)}: label {cells[first]!r} of {name!r} is class {y[first]}, but "
            f"data.outputs.{name} = {outputs} allows 0 to {outputs - 1}"
        )
    return Task(name, "multiclass", outputs or classes), torch.from_numpy(y)


def _class(cell: str) -> int | None:
    """Return the class that a cell names by number, ``1`` and ``1.0`` alike; None: it does not."""
    value = number(cell)
    # Never beyond what float64 tells apart, nor int64.
    return int(value) if value is not None and value.is_integer() and 0 <= value < 2**53 else None


def _refuse_gaps(name: str, y: np.ndarray, where: Where) -> None:
    absent = np.setdiff1d(np.arange(min(int(y.max()) + 1, len(y) + 1)), y)
    if absent.size:
        raise UserError(
            f"{where(int(y.argmax()))}: {name!r} has class {y.max()} but never class "
            f"{absent[0]}; number classes from 0, or declare data.outputs.{name}"
        )


def _vectors(
    name: str,
    kind: str,
    cells: Sequence[str],
    filled: list[int],
    where: Where,
    outputs: int | None,
) -> tuple[Task, Tensor]:
    width = outputs or len(cells[filled[0]].split())
    y = np.full((len(cells), width), np.nan)
    for i in filled:
        parts = [number(part) for part in cells[i].split()]
        if None in parts:
            raise UserError(
                f"{where(i)}: {cells[i]!r} of {name!r} is not a number such as -1.5; fix the cell, "
                "or leave it empty where there is none"
            )
        if len(parts) != width:
            raise UserError(
                f"{where(i)}: {cells[i]!r} of {name!r} has {len(parts)} numbers, expected {width}"
            )
        if kind == "multilabel" and not set(parts) <= {0, 1}:
            raise UserError(f"{where(i)}: {cells[i]!r} of multilabel {name!r} is not all 0 and 1")
        y[i] = parts
    if kind == "regression" and outputs is None and len(filled) > 1:
        _refuse_constant(name, y[filled], lambda: f"{where(filled[0])}: {name!r}")
    single = [as_float32(f"target {name!r}", y[:, k], where) for k in range(width)]
    return Task(name, kind, width), torch.from_numpy(np.stack(single, 1))


def _refuse_constant(name: str, y: np.ndarray, what: Callable[[], str]) -> None:
    if (y == y[0]).all():
        raise UserError(
            f"{what()} is {' '.join(f'{v:g}' for v in y[0])} everywhere, which leaves nothing to "
            f"learn; leave it out, or declare data.outputs.{name}"
        )


def as_float32(what: str, values: np.ndarray, where: Where) -> np.ndarray:
    """Return ``[n]`` float64 numbers (NaN: missing) as float32.

    Args:
        what: they are, for errors.
        values: the numbers.
        where: names the file and line of each in errors.

    Raises:
        UserError: one is beyond float32, or that is too coarse for the differences between them.
    """
    try:
        return float32(values)
    except OverflowError:
        with np.errstate(over="ignore"):
            row = int(np.isinf(values.astype(np.float32)).argmax())
        raise UserError(
            f"{where(row)}: {what} is {values[row]:g}, not finite in float32; use another unit"
        ) from None
    except ArithmeticError:
        low, high = np.nanmin(values), np.nanmax(values)
        raise UserError(
            f"{where(0)}: {what} goes from {low:.17g} to {high:.17g}, and float32 is too coarse "
            "for the differences; subtract a constant from it (a date: seconds since the first)"
        ) from None
