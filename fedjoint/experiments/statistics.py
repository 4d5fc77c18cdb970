"""Ranks, the average relative gain over a reference, and the share of comparisons won."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats


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


def won(scores: Sequence[float], reference: Sequence[float], higher: Sequence[bool]) -> float:
    """Return the share of tasks, in [0, 1], on which the scores beat a reference; ties half.

    The companion of :func:`delta_m`, which one task can carry alone: R2 has no lower bound, and
    a reference near zero makes any gain over it large. A share of wins weighs each task alike.

    NaN under the conditions of :func:`delta_m`, a reference of zero aside.
    """
    own, other = np.asarray(scores, float), np.asarray(reference, float)
    if not np.isfinite([own, other]).all():
        return math.nan
    better = np.where(higher, own > other, own < other)
    return float(np.mean(better + 0.5 * (own == other)))
