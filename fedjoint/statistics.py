"""Means with intervals, ranks, and the average relative gain over a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats


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


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of the finite values, and Student's 95 % interval."""
    known = [v for v in values if math.isfinite(v)]
    mean = float(np.mean(known)) if known else math.nan
    half = math.nan
    if len(known) > 1:
        half = float(stats.sem(known) * stats.t.ppf(0.975, len(known) - 1))
    return Interval(mean, half, len(known), len(values))


def columns(name: str, found: Interval) -> dict[str, float]:
    """Return the cells of a table: ``name``, ``name 95 %`` (half the interval), ``name seeds``."""
    return {name: found.mean, f"{name} 95 %": found.half, f"{name} seeds": found.known}


def from_columns(name: str, row: Mapping[str, Any]) -> Interval:
    """Return the interval behind :func:`columns`; ``row["seeds"]`` is how many there are."""
    return Interval(row[name], row[f"{name} 95 %"], row[f"{name} seeds"], row["seeds"])


def mean_ranks(scores: Mapping[str, Sequence[float]], higher: Sequence[bool]) -> dict[str, float]:
    """Return each contestant's mean rank, one is best; ties share, what is not finite is last.

    Args:
        scores: contestant -> one score per comparison (say, per task and seed).
        higher: per comparison, whether more is better.
    """
    table = np.array(list(scores.values()), float)
    signed = np.where(np.asarray(higher), -table, table)
    ranks = stats.rankdata(np.where(np.isfinite(signed), signed, np.inf), axis=0)
    return dict(zip(scores, ranks.mean(1).tolist(), strict=True))


def delta_m(scores: Sequence[float], reference: Sequence[float], higher: Sequence[bool]) -> float:
    """Return the average relative gain over a reference, in percent; positive is better.

    ``100 / T * sum_t (-1)^(lower is better) * (score_t - reference_t) / |reference_t|``

    NaN where a score or a reference is not finite, or a reference is zero: an average over
    fewer tasks would be another quantity, and flatter whoever diverged on the others.

    Paper: Maninis, Radosavovic and Kokkinos, "Attentive Single-Tasking of Multiple Tasks", CVPR
    2019, https://arxiv.org/abs/1904.08918
    """
    gains = [
        (s - r) / abs(r) * (1 if up else -1) if r else math.nan
        for s, r, up in zip(scores, reference, higher, strict=True)
    ]
    mean = 100 * float(np.mean(gains))
    return mean if math.isfinite(mean) else math.nan
