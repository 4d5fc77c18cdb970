"""Sums and curves of an arm on runs that are made up."""

import math

import pytest
from handmade import ERROR, UP, arm, both, curve

from fedjoint.experiments.arms import Arm, Trained


def test_a_seed_of_one_run_a_task_is_summed_and_each_task_found():
    up = curve(test_up=[0.5, 0.6], valid_up=[0.1, 0.2], steps=10)
    size = curve(test_size=[3.0, 2.0], valid_size=[5.0, 4.0], steps=30)
    found = Arm("per task", (UP, ERROR), [Trained((up, size), 4)])
    assert found.best("up") == [0.6] and found.best("size", "valid") == [4.0]
    assert found.curve(0, "size") == [(2, 3.0), (4, 2.0)]
    assert found.megabytes == [12.0] and found.seconds == [4.0]  # of four rounds each
    assert found.steps == [160] and found.steps_per_client == [40.0]
    assert found.scores() == pytest.approx([(0.6 - 2.0) / 2]) and found.worst() == [-2.0]


CURVES = {
    "valid_up": [0.3, 0.9, 0.9, 0.5],
    "test_up": [0.1, 0.2, 0.3, 0.4],
    "valid_size": [4.0, 5.0, 5.0, 1.0],
    "test_size": [9.0, 8.0, 7.0, 6.0],
}


def test_what_shares_a_backbone_has_one_best_round_the_last_of_the_best():
    # Means of up and minus size over its first size: -0.35, -0.175 twice, 0.125.
    found = arm("joint", curve(**CURVES), tasks=(UP, ERROR))
    assert found.best("up") == [0.4] and found.best("size") == [6.0]
    assert found.rounds("up") == found.rounds("size") == [8.0]
    cut = {name: values[:3] for name, values in CURVES.items()}
    found = arm("joint", curve(**cut), tasks=(UP, ERROR))
    assert found.best("up") == [0.3] and found.best("size", "valid") == [5.0]
    assert found.rounds("up") == found.rounds("size") == [6.0] and found.last("size") == [7.0]
    assert found.scores() == pytest.approx([(0.3 - 7.0) / 2])


def test_who_trains_alone_has_a_best_round_for_each_task():
    found = arm("alone", curve(**CURVES), tasks=(UP, ERROR))
    found.alone = True
    assert found.best("up") == [0.3] and found.rounds("up") == [6.0]
    assert found.best("size") == [6.0] and found.rounds("size") == [8.0]


def test_a_round_without_a_validation_metric_is_not_the_best():
    found = arm("joint", curve(valid_up=[None, 0.1, None], test_up=[1, 2, 3]), tasks=(UP,))
    assert found.best("up") == [2.0] and found.last("up") == [3.0]
    none = arm("joint", curve(test_up=[1, 2, 3]), tasks=(UP,))
    assert none.best("up") == none.last("up") == [3.0]  # there is nothing to choose by
    bare = Arm("joint", (UP,), [Trained((curve(test_up=[1.0]),), 1)])
    bare.seeds[0].runs[0].records.clear()
    assert math.isnan(bare.best("up")[0]) and math.isnan(bare.rounds("up")[0])


def test_the_spread_is_that_of_the_best_round():
    spread = {"up": {"clients": 3, "std": 0.25, "worst": 0.125, "worst_tenth": 0.2}}
    found = both("joint", [0.5, 0.5], [1.0, 1.0])
    found.seeds = [Trained((curve(spread, test_up=[0.1, 0.5], test_size=[1, 1]),), 3)] * 2
    assert found.spread("up", "std") == [0.25, 0.25]
    assert found.spread("up", "worst_tenth") == [0.2, 0.2]
    assert math.isnan(found.spread("size", "std")[0])  # not told
    assert math.isnan(both("old", [0.5], [1.0]).spread("up", "std")[0])


def test_one_client_has_no_spread():
    spread = {"up": {"clients": 1, "std": 0.0, "worst": 0.5, "worst_tenth": 0.5}}
    found = arm("centralised", curve(spread, test_up=[0.5]), tasks=(UP,))
    assert math.isnan(found.spread("up", "worst")[0])
