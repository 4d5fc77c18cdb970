"""Ranks, Delta-m and the share of wins by hand."""

import math

import pytest

from fedjoint.experiments.statistics import delta_m, mean_ranks, won


def test_ranks_share_ties_and_put_the_undefined_last():
    scores = {"a": [0.9, 1.0], "b": [0.9, 3.0], "c": [0.1, math.nan]}
    assert mean_ranks(scores, [True, False]) == {"a": 1.25, "b": 1.75, "c": 3.0}


def test_delta_m_by_hand():
    # +10 % on a metric that should rise, -20 % on one that should fall: 15 % better on average.
    assert delta_m([1.1, 0.8], [1.0, 1.0], [True, False]) == pytest.approx(15.0)


def test_wins_by_hand():
    # Better, better as it fell, worse, as good.
    scores, reference = [0.9, 0.5, 0.2, 0.4], [0.8, 0.7, 0.3, 0.4]
    assert won(scores, reference, [True, False, True, True]) == pytest.approx(2.5 / 4)


def test_one_task_carries_delta_m_alone_but_not_the_wins():
    scores, reference, up = [0.9, 0.9, 0.9, -500.0], [0.8] * 4, [True] * 4
    assert delta_m(scores, reference, up) < -10_000
    assert won(scores, reference, up) == 0.75
    assert won([0.9] * 3 + [0.3], [0.8] * 3 + [1e-6], up) == 1.0


@pytest.mark.parametrize("measure", [delta_m, won])
@pytest.mark.parametrize(
    ("scores", "reference"),
    [([math.nan, 0.9], [0.5, 0.5]), ([0.9, math.inf], [0.5, 0.5]), ([0.9, 0.9], [math.nan, 0.5])],
)
def test_both_are_undefined_where_a_metric_is(measure, scores, reference):
    assert math.isnan(measure(scores, reference, [True, True]))


def test_relative_to_nothing_is_undefined():
    assert math.isnan(delta_m([0.1, 0.9], [0.0, 0.5], [True, True]))
    assert won([0.1, 0.9], [0.0, 0.5], [True, True]) == 1.0
