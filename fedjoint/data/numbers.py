"""Cells of text -> numbers: one way to write them, and everything else refused or said."""

from __future__ import annotations

import re

import numpy as np

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)

#: words that mean "missing" to some programs, and to others a class, a name or a mistake
_MISSING = {"na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", "nat", "missing"}
_MISSING |= {"?", "-", "--", ".", "*", "#div/0!", "#value!", "#ref!"}

# What people and spreadsheets write into numbers: signs, currencies, percent, separators.
_ORNAMENT = re.compile(r"[\s.,'’_+\-−()%‰$€£¥₹]|e(?=[+-]?\d)", re.IGNORECASE)
_DATE = re.compile(r"\d+([-/.]\d+){2}([T ]\d+(:\d+)*.*)?|\d+(:\d+)+(\.\d+)?|\d+[-/]\d+")

#: the most that rounding may move a number, in deviations of its column
COARSE = 0.01


def number(cell: str) -> float | None:
    """Return the number in a cell: ASCII digits with a point, as ``-1.5e3``; None: there is none.

    Not ``1,5``, ``1 000``, ``1_000``, other scripts' digits, ``inf`` or ``nan``.
    """
    text = cell.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def means_missing(cell: str) -> bool:
    """Whether a cell holds a word such as ``NA`` or ``?``, which may mean a missing value."""
    return cell.strip().lower() in _MISSING


def is_date(cell: str) -> bool:
    """Whether a cell looks like a date or a time of day."""
    return _DATE.fullmatch(cell.strip()) is not None


def looks_like_a_number(cell: str) -> bool:
    """Whether a cell is what people write for a number, such as ``1 000``, ``1,5`` or ``$5``."""
    return _ORNAMENT.sub("", cell).isdecimal() and not is_date(cell)


def float32(values: np.ndarray) -> np.ndarray:
    """Return float64 ``[n]`` numbers (NaN: missing) as float32.

    Raises:
        OverflowError: a number is beyond float32.
        ArithmeticError: float32 is too coarse for the differences between them.
    """
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32)
    if np.isinf(single).any():
        raise OverflowError("beyond float32")
    there = ~np.isnan(values)
    spread = values[there].std() if there.any() else 0.0
    if spread and np.abs(single[there] - values[there]).max() > COARSE * spread:
        raise ArithmeticError("too fine for float32")
    return single
