"""Intervals, ranks and Delta-m against hand-worked and SciPy values."""

import math

import pytest
from scipy import stats

from fedjoint.statistics import columns, delta_m, from_columns, interval, mean_ranks


def test_interval_is_students():
    values = [0.8, 0.9, 0.85]
    low, high = stats.t.interval(0.95, 2, loc=0.85, scale=stats.sem(values))
    found = interval(values)
    assert found.mean == pytest.approx(0.85)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert math.isnan(interval([1.0]).half)
    assert f"{found:.2f}" == "0.85 ± 0.12"


def test_missing_values_are_said():
    found = interval([0.8, math.nan, 0.9, math.inf])
    assert found[0] == pytest.approx(0.85) and found[2:] == (2, 4)
    assert f"{found:.2f}" == "0.85 ± 0.64 (2 of 4)"
    assert f"{interval([math.nan]):+.2f}" == "nan (0 of 1)"
    row = columns("test", found) | {"seeds": 4}
    assert from_columns("test", row) == found


def test_ranks_share_ties_and_put_the_undefined_last():
    scores = {"a": [0.9, 1.0], "b": [0.9, 3.0], "c": [0.1, math.nan]}
    assert mean_ranks(scores, [True, False]) == {"a": 1.25, "b": 1.75, "c": 3.0}


def test_delta_m_by_hand():
    # +10 % on a metric that should rise, -20 % on one that should fall: 15 % better on average.
    assert delta_m([1.1, 0.8], [1.0, 1.0], [True, False]) == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("scores", "reference"),
    [([math.nan, 0.9], [0.5, 0.5]), ([0.9, math.inf], [0.5, 0.5]), ([0.9, 0.9], [math.nan, 0.5])],
)
def test_delta_m_is_undefined_where_a_metric_is(scores, reference):
    assert math.isnan(delta_m(scores, reference, [True, True]))
    assert math.isnan(delta_m([0.1, 0.9], [0.0, 0.5], [True, True]))  # relative to nothing
