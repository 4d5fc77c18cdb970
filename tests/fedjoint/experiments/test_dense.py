"""Every way of training, and the trivial predictor, for tasks of places, words and boxes."""

import math

import pytest

from fedjoint.config.load import check
from fedjoint.experiments.compare import compare
from fedjoint.experiments.trivial import by_seed


def config(folder, case):
    return check(
        {
            "problem": f"support.zoo.dense:{case}",
            "rounds": 2,
            "local": {"batch_size": 4, "optimiser": {"lr": 0.05}},
            "engine": {"name": "inline"},
            "output": {"dir": str(folder)},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", ["maps_and_classes", "detection", "tokens", "preference"])
def test_every_arm_measures_every_metric(case, tmp_path):
    found = compare(config(tmp_path, case), 1)
    assert found.arms.keys() >= {"alone", "joint", "centralised"}
    measured = {(row["metric"], row["arm"]) for row in found.rows if math.isfinite(row["test"])}
    names = {metric.name for task in found.tasks for metric in task.metrics}
    assert measured >= {(name, arm) for name in names for arm in found.arms}


def test_what_learns_nothing_has_the_metrics_of_its_constant(tmp_path):
    places = by_seed(config(tmp_path, "maps_and_classes"), 1)
    # A constant ties: its average precision is the share of the class, its error is above zero.
    assert 0 < places["kind"][0] < 1 and places["depth"][0] > 0
    assert by_seed(config(tmp_path, "detection"), 1)["squares"] == [0.0]
    words = by_seed(config(tmp_path, "tokens"), 1)
    # Of ten words that are as frequent, the shares of a few examples are nearly a tenth each.
    assert 8 < words["next"][0] < 14
