"""Means with intervals, ranks, and the average relative gain over a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean and half the width of its 95 % interval (NaN for a single value)."""

    mean: float
    half: float

    def __format__(self, spec: str) -> str:
        """Write both numbers alike, say with ``+.2f``; a NaN width is left out.

        From a thousand on, which only diverged runs reach, they are written in powers of ten.
        """
        if max(abs(self.mean), abs(self.half)) >= 1000:
            spec = spec[:-3] + ".1e"
        half = "" if math.isnan(self.half) else f" ± {self.half:{spec.removeprefix('+')}}"
        return f"{self.mean:{spec}}{half}"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and Student's 95 % interval; values that are not finite are left out."""
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return Interval(math.nan, math.nan)
    if len(known) == 1:
        return Interval(known[0], math.nan)
    error = stats.sem(known)
    return Interval(float(np.mean(known)), float(error * stats.t.ppf(0.975, len(known) - 1)))


def columns(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the cells of a table: ``name``, the mean, and ``name 95 %``, half its interval."""
    found = interval(values)
    return {name: found.mean, f"{name} 95 %": found.half}


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

    Paper: Maninis, Radosavovic and Kokkinos, "Attentive Single-Tasking of Multiple Tasks", CVPR
    2019, https://arxiv.org/abs/1904.08918
    """
    gains = [
        (s - r) / abs(r) * (1 if up else -1)
        for s, r, up in zip(scores, reference, higher, strict=True)
        if math.isfinite(s) and math.isfinite(r) and r
    ]
    return 100 * float(np.mean(gains)) if gains else math.nan
