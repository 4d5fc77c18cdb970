"""A problem whose data do not fit together is refused where it is made."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Problem, Task
from fedjoint.config.schema import BackboneConfig
from fedjoint.config.section import Plugin
from fedjoint.errors import UserError
from fedjoint.model.inputs import Inputs
from fedjoint.problem import Backbone, with_metrics

FITS = {"task_names": ("a",), "sizes": np.array([3, 2]), "tasks": np.ones((2, 1), bool)}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"sizes": [3, 2]}, "data.sizes is list, not a NumPy array of shape (2,)"),
        ({"sizes": np.array(3)}, "data.sizes is (), not a NumPy array of shape (1,)"),
        ({"tasks": [[True], [True]]}, "data.tasks is list, not a NumPy array of shape (2, 1)"),
        ({"tasks": np.ones(2, bool)}, "data.tasks is (2,), not a NumPy array of shape (2, 1)"),
        ({"tasks": np.ones((2, 1), int)}, "data.tasks is of int64"),
        (
            {"tasks": np.array([[True], [False]])},
            "client 1 has training examples and no task: give it one in data.tasks, or no examples",
        ),
        ({"sizes": np.array([3, -2])}, "negative number of examples"),
        ({"sizes": np.array([0, 0])}, "no client has a training example"),
        ({"task_names": ("b",)}, "the data's are ('b',)"),
        ({"names": 1}, "the data are a SimpleNamespace without 'sizes'"),
    ],
)
def test_data_that_do_not_fit_together(other, words):
    data = SimpleNamespace(**(FITS | other if "names" not in other else {"task_names": ("a",)}))
    with pytest.raises(UserError, match=re.escape(words)):
        Problem([Task("a", "regression", 1)], lambda: nn.Linear(2, 2), data, torch.zeros(1, 2))


def test_metrics_by_name_replace_those_of_the_kind():
    tasks = [Task("a", "regression", 1), Task("b", "multiclass", 3)]
    named = with_metrics(tasks, {"a": [Plugin(name="rmse")]})
    assert [task.metric_fn.name for task in named] == ["RMSE", "accuracy"]
    assert Task("a", "regression", 1, metric="rmse") == named[0]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            {"aa": Plugin(name="r2")},
            "unknown task in metrics 'aa': allowed are a; did you mean",
        ),
        ({"a": Plugin(name="rmsee")}, "unknown metric 'rmsee': .*did you mean 'rmse'"),
        ({"a": Plugin(name="r2", options={"k": 1})}, "metric r2: Metric is no class or function"),
        ({"a": Plugin(name="collections:Counter")}, "metric .*: Counter is no fedjoint.Metric"),
    ],
)
def test_a_metric_that_cannot_be_had_is_one_line(metrics, said):
    with pytest.raises(UserError, match=said) as error:
        with_metrics([Task("a", "regression", 1)], {n: [m] for n, m in metrics.items()})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mlp", {"hidden": []}, "backbone mlp: option hidden"),
        ("mlp", {"hidden": [4, 0]}, "option hidden.1 = 0"),
        ("cnn", {"hiden": [4]}, "unknown option of backbone cnn 'hiden'.*did you mean 'hidden'"),
        ("collections:Counter", {}, "Counter is no torch.nn.Module"),
    ],
)
def test_a_backbone_that_cannot_be_had_is_one_line(name, options, said):
    inputs = Inputs(shape=(3,), dtype="float32")
    with pytest.raises(UserError, match=said) as error:
        Backbone(BackboneConfig(name=name, options=options), inputs)()
    assert "\n" not in str(error.value)
