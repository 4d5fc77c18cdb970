"""What a server knows of the metrics of tasks whose problem only the nodes were given."""

import pytest
from support.fleet import Fleet, answering
from support.zoo.dense import tokens

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server
from fedjoint.model.tasks import Task
from fedjoint.node.node import Node
from fedjoint.runs.directory import RunDir
from fedjoint.server.serve import serve
from fedjoint.server.tasks import KnownTasks

PROBLEM = "support.zoo.dense:tokens"
TASK = next(task for task in tokens(check({})).tasks if task.name == "part")
NAMES = [metric.name for metric in TASK.metrics]


def elsewhere(config):
    """A problem whose data are on the nodes alone."""
    raise FileNotFoundError("no such folder")


def test_metrics_of_a_problem_in_python_are_those_of_the_problem():
    known = KnownTasks(check({"problem": PROBLEM}), ())
    assert known.of(TASK.bare).metrics == (TASK.form.metric,)
    known.check(TASK.bare, NAMES)
    assert [metric.name for metric in known.of(TASK.bare).metrics] == NAMES


def test_metrics_that_are_configured_or_the_kind_s_own_need_no_problem():
    nowhere = f"{__name__}:elsewhere"
    own = {"part": ["macro_f1", "balanced_accuracy"]}
    KnownTasks(check({"problem": nowhere, "metrics": own}), ()).check(TASK.bare, NAMES)
    KnownTasks(check({"problem": nowhere}), ()).check(TASK.bare, [TASK.form.metric.name])


@pytest.mark.parametrize("problem", [None, f"{__name__}:elsewhere", PROBLEM])
def test_metrics_that_nobody_can_know_are_refused_in_one_line(problem):
    known = KnownTasks(check({"problem": problem}), ())
    task = Task("digit", "multiclass", 10)
    with pytest.raises(UserError, match="is measured by mine there, by accuracy on the server"):
        known.check(task, ["mine"])


def test_a_server_apart_evaluates_the_metrics_that_a_problem_brings(tmp_path):
    be_server()
    config = check({"problem": PROBLEM, "rounds": 1, "local": {"batch_size": 4}})
    node = Node(tokens(config), config, None, {0: 0, 1: 1}, name="own")
    done = RunDir.create(tmp_path, "run", config)
    serve(Fleet({1: answering(node)}), config, done, deployed=True)
    (record,) = done.records()
    assert record.clients.unevaluated == ()
    assert record.evaluation["train"].keys() == {*TASK.measures, "next"}


def test_a_node_with_metrics_that_the_server_cannot_know_ends_the_run_before_it_begins(tmp_path):
    be_server()
    config = check({"rounds": 1, "data": {"clients": 4}})
    node = Node(tokens(config), config, None, {0: 0, 1: 1}, name="own")
    done = RunDir.create(tmp_path, "run", config)
    with pytest.raises(UserError, match=r"name its metrics in the configuration.*metrics\.part"):
        serve(Fleet({1: answering(node)}), config, done, deployed=True)
    assert done.records() == []
