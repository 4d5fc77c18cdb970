"""Intervals and p-values against SciPy, closed forms, and simulated data sets."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from fedjoint.experiments.intervals import columns, from_columns, holm, how, interval, p_value


def test_without_overlap_it_is_students():
    values = [0.8, 0.9, 0.85]
    low, high = stats.t.interval(0.95, 2, loc=0.85, scale=stats.sem(values))
    found = interval(values)
    assert found.mean == pytest.approx(0.85)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert math.isnan(interval([1.0]).half)
    assert f"{found:.2f}" == "0.85 ± 0.12"
    differences = [0.1, 0.3, -0.05, 0.2]
    assert p_value(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_overlap_widens_it_as_in_the_paper():
    # Of 10 + 2 examples, five splits: the variance's factor is 1/5 + 2/10, twice that of 1/5.
    values = [0.1, 0.2, 0.15, 0.3, 0.25]
    plain, corrected = interval(values), interval(values, 2 / 10)
    assert corrected.mean == plain.mean
    assert corrected.half == pytest.approx(plain.half * 2**0.5)
    t = np.mean(values) / math.sqrt((1 / 5 + 2 / 10) * np.var(values, ddof=1))
    assert p_value(values, 2 / 10) == pytest.approx(2 * (1 - stats.t.cdf(t, 4)))


@pytest.mark.parametrize("overlap", [0.0, 0.25])
@pytest.mark.parametrize("shift", np.linspace(-0.3, 0.3, 7))
def test_an_interval_lacks_zero_where_its_p_value_is_small(shift, overlap):
    values = np.array([0.1, -0.05, 0.02, 0.08, 0.0]) + shift
    found = interval(values, overlap)
    assert (abs(found.mean) > found.half) == (p_value(values, overlap) < 0.05)


def test_coverage_over_re_splits_of_one_data_set():
    """What the mean of the training examples gains over zero, in squared error: known exactly."""
    train, test, splits, mean = 80, 20, 10, 1.0
    truth = mean**2 - 1 / train
    rng = np.random.default_rng(0)
    covered = {0.0: 0, test / train: 0}
    for _ in range(600):
        y = rng.normal(mean, 1, train + test)
        gains = []
        for _ in range(splits):
            own, other = np.split(rng.permutation(y), [train])
            gains.append(float(np.mean(other**2 - (other - own.mean()) ** 2)))
        for overlap in covered:
            found = interval(gains, overlap)
            covered[overlap] += abs(found.mean - truth) <= found.half
    plain, corrected = (count / 600 for count in covered.values())
    assert plain < 0.8 and 0.92 < corrected < 0.98


def test_coverage_over_independent_data_sets():
    rng = np.random.default_rng(0)
    found = [interval(rng.normal(1, 1, 5).tolist()) for _ in range(2000)]
    assert np.mean([abs(f.mean - 1) <= f.half for f in found]) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_seeds_that_moved_by_the_same_step_settle_nothing(seeds):
    # The same step of a test set of 60, from other scores: alike but for rounding.
    values = [(k + 1) / 60 - k / 60 for k in range(20, 20 + seeds)]
    for alike in ([0.25] * seeds, values, [-value for value in values]):
        found = interval(alike)
        assert p_value(alike) == 1 and found.half == 0 and found.mean != 0 and not found.clear
    apart = [*values[1:], 2 / 60]
    assert p_value(apart) < 1 and interval(apart).half > 0


def test_an_interval_is_clear_of_zero_as_its_p_value_says():
    for values in ([0.1, 0.11, 0.12], [-0.1, -0.11, -0.12], [0.1, -0.1, 0.3], [0.0, 0.0], [0.3]):
        assert interval(values).clear == (p_value(values) < 0.05)


def test_a_p_value_at_the_edges():
    assert p_value([0.0, 0.0]) == 1
    assert math.isnan(p_value([0.5])) and math.isnan(p_value([0.5, math.nan, 0.7]))


def closure(p):
    """Return Holm's p-values by the closed testing principle, with Bonferroni's test."""
    sets = [s for n in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), n)]
    bonferroni = {s: min(1.0, len(s) * min(p[i] for i in s)) for s in sets}
    return [max(bonferroni[s] for s in sets if i in s) for i in range(len(p))]


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closure_of_bonferroni(seed):
    p = np.random.default_rng(seed).uniform(0, 0.4, 6).round(2).tolist()
    assert list(holm(dict(enumerate(p))).values()) == pytest.approx(closure(p))


def test_holm_counts_what_is_unknown():
    found = holm({"a": 0.01, "b": math.nan, "c": 0.03})
    assert found["a"] == pytest.approx(0.03) and found["c"] == pytest.approx(0.06)
    assert math.isnan(found["b"]) and list(found) == ["a", "b", "c"]


def test_holm_keeps_false_claims_rare():
    rng = np.random.default_rng(0)
    any_claim = []
    for _ in range(1000):
        p = {i: p_value(rng.normal(0, 1, 5).tolist()) for i in range(8)}
        any_claim.append(min(holm(p).values()) < 0.05)
    assert np.mean(any_claim) < 0.07  # one in three without


def test_missing_values_are_said():
    found = interval([0.8, math.nan, 0.9, math.inf])
    assert found[0] == pytest.approx(0.85) and found[2:] == (2, 4)
    assert f"{found:.2f}" == "0.85 ± 0.64 (2 of 4)"
    assert f"{interval([math.nan]):+.2f}" == "nan (0 of 1)"
    row = columns("test", found) | {"seeds": 4}
    assert from_columns("test", row) == found


def test_it_is_said_how_an_interval_was_made():
    assert "Nadeau" in how(0.25) and "0.25" in how(0.25)
    assert "Student" in how(0.0) and "Nadeau" not in how(0.0)
