"""Means over seeds with their intervals, and what may be claimed from them.

The seeds of a comparison split one data set anew: their training and test examples overlap, and
Student's interval, made for independent values, is too narrow. The correction of Nadeau and
Bengio widens it by what two splits have in common.

Paper: Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003,
https://doi.org/10.1023/A:1024068626366
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from scipy import stats

#: A difference is claimed where its p-value, corrected for several comparisons, is below.
LEVEL = 0.05

#: Values are alike where they differ by less, relative to the largest.
_ROUNDING = 1e-9

Key = TypeVar("Key", bound=Hashable)


class Interval(NamedTuple):
    """A mean and half the width of its 95 % interval (NaN for a single value).

    Attributes:
        mean: of the finite values.
        half: half the width.
        known: how many values are finite.
        of: how many there are.
    """

    mean: float
    half: float
    known: int = 1
    of: int = 1

    @property
    def clear(self) -> bool:
        """Whether zero is outside; no interval of width zero, or unknown, settles that."""
        return 0 < self.half < abs(self.mean)

    def __format__(self, spec: str) -> str:
        """Write both numbers alike, say with ``+.2f``; a NaN width is left out.

        Where values are missing it says so, as in ``0.90 ± 0.02 (2 of 3)``. From a thousand on,
        which only diverged runs reach, numbers are written in powers of ten.
        """
        if max(abs(self.mean), abs(self.half)) >= 1000:
            spec = spec[:-3] + ".1e"
        half = "" if math.isnan(self.half) else f" ± {self.half:{spec.removeprefix('+')}}"
        mean = "nan" if math.isnan(self.mean) else f"{self.mean:{spec}}"
        missing = f" ({self.known} of {self.of})" if self.known < self.of else ""
        return f"{mean}{half}{missing}"


def interval(values: Sequence[float], overlap: float = 0.0) -> Interval:
    """Return the mean of the finite values, and its 95 % interval.

    Half its width is Student's quantile with J - 1 degrees of freedom times
    ``sqrt((1 / J + overlap) * variance)``, for J values.

    Args:
        values: one per seed.
        overlap: test examples over training examples, where the seeds are splits of one data
            set; 0 where they are independent, which gives Student's interval.
    """
    known = [v for v in values if math.isfinite(v)]
    mean = float(np.mean(known)) if known else math.nan
    half = math.nan
    if len(known) > 1:
        half = float(stats.t.ppf(0.975, len(known) - 1)) * _error(known, overlap)
    return Interval(mean, half, len(known), len(values))


def of_all(values: Sequence[float], overlap: float = 0.0) -> Interval:
    """Return the interval of :func:`interval`; NaN where a value is not finite.

    A mean over the seeds that went well would flatter.
    """
    found = interval(values, overlap)
    return found if found.known == found.of else found._replace(mean=math.nan, half=math.nan)


def p_value(differences: Sequence[float], overlap: float = 0.0) -> float:
    """Return the two-sided p-value of the mean difference; below 0.05 where the interval lacks 0.

    NaN where a difference is not finite, and for fewer than two. It is 1 where all differences are
    alike: a metric moves by steps, of an example of the test set say, so that a few seeds may well
    move by the same, and the formula would be certain of what nobody has seen vary.

    Args:
        differences: one per seed, of two ways of training on the same split.
        overlap: see :func:`interval`.
    """
    if len(differences) < 2 or not np.isfinite(differences).all():
        return math.nan
    mean, error = float(np.mean(differences)), _error(differences, overlap)
    if error == 0:
        return 1.0
    return float(2 * stats.t.sf(abs(mean) / error, len(differences) - 1))


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Return the p-values, corrected for as many comparisons by Holm's method.

    All of them together falsely fall below a level no more often than that. An unknown (NaN)
    one stays so, and counts as a comparison.

    Paper: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
    of Statistics 6, 1979, https://www.jstor.org/stable/4615733
    """
    found = dict(p_values)
    known = [key for key, p in p_values.items() if not math.isnan(p)]
    known.sort(key=lambda key: p_values[key])
    least = 0.0
    for rank, key in enumerate(known):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[key]))
        found[key] = least
    return found


def how(overlap: float) -> str:
    """Say what the intervals are over, and how they were made."""
    if overlap:
        return (
            "intervals: over re-splits of one data set, widened for what they share by Nadeau "
            f"and Bengio's correction (test / train = {overlap:.2f})"
        )
    return "intervals: Student's, over seeds taken as independent"


def columns(name: str, found: Interval) -> dict[str, Any]:
    """Return an interval as columns of a row: ``name``, ``name 95 %`` and ``name seeds``."""
    return {name: found.mean, f"{name} 95 %": found.half, f"{name} seeds": found.known}


def from_columns(name: str, row: Mapping[str, Any]) -> Interval:
    """Return the interval of a row's columns; ``row["seeds"]`` is how many there are."""
    return Interval(row[name], row[f"{name} 95 %"], row[f"{name} seeds"], row["seeds"])


def _error(values: Sequence[float], overlap: float) -> float:
    """Return the standard error of the mean; 0 where values differ by rounding alone."""
    if np.ptp(values) <= _ROUNDING * np.abs(values).max():
        return 0.0
    return float(np.std(values, ddof=1)) * math.sqrt(1 / len(values) + overlap)
