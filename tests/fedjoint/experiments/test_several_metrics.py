"""A comparison tells all metrics of a task, those after the first in the round that it decides."""

import pytest
from handmade import arm, curve, printed
from rich.console import Console

from fedjoint.experiments.compare import Comparison
from fedjoint.experiments.show_compare import show_compare
from fedjoint.model.tasks import Task

TASK = Task("kind", "multiclass", 3, metric=["accuracy", "cross_entropy"])


def run(accuracy, loss):
    found = curve(valid_kind=accuracy, test_kind=accuracy)
    for record, value in zip([r for r in found.records if r.evaluation], loss, strict=True):
        record.evaluation["test"]["kind/cross-entropy"] = value
    return found


def test_the_further_metric_is_that_of_the_best_round_by_the_first():
    arms = {
        "alone": arm(
            "alone", run([0.2, 0.3], [1.0, 0.5]), run([0.2, 0.3], [1.0, 0.7]), tasks=(TASK,)
        ),
        "joint": arm(
            "joint", run([0.9, 0.3], [0.8, 0.1]), run([0.9, 0.3], [0.6, 0.1]), tasks=(TASK,)
        ),
    }
    found = Comparison(arms)
    further = [row for row in found.rows if row["metric"] == "cross-entropy"]
    assert [row["arm"] for row in further] == ["alone", "joint"]
    assert [row["test"] for row in further] == pytest.approx([0.6, 0.7])
    assert [gain["on"] for gain in found.gains()].count("kind") == len(found.parts)

    def show(console: Console) -> None:
        show_compare(found, 0.1, console)

    text = printed(show)
    assert "cross-entropy" in text and "0.700" in text
