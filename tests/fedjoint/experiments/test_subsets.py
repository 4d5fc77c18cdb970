"""Joint runs of some of the tasks."""

import numpy as np
import pytest
import torch
from handmade import digits

from fedjoint.errors import UserError
from fedjoint.experiments.arms import Way, run_arm
from fedjoint.experiments.subsets import SomeTasks, run_of
from fedjoint.experiments.ways import JOINT
from fedjoint.problem import build_problem

MIX = {"clients": 8, "test_fraction": 0.6, "task_mix": [["digit"], ["ink", "loop"], ["loop"]]}


def test_clients_keep_what_they_have_of_these_tasks(tmp_path):
    data = build_problem(digits(tmp_path, data=MIX)).data
    some = SomeTasks(data, ["ink", "digit"])
    assert some.task_names == tuple(n for n in data.task_names if n in ("digit", "ink"))
    for client in range(8):
        names = set(data.client(client).train.y) & {"digit", "ink"}
        found, whole = some.client(client), data.client(client)
        assert set(found.test.y) == names and bool(some.sizes[client]) == bool(names)
        assert len(found.train) == (len(whole.train) if names else 0)
        if names:
            assert torch.equal(found.train.x, whole.train.x)
            assert all(torch.equal(found.valid.y[name], whole.valid.y[name]) for name in names)
    assert np.array_equal(some.sizes > 0, some.tasks.any(1))


def test_of_all_tasks_it_is_the_joint_run(tmp_path):
    config = digits(tmp_path, data=MIX, rounds=2)

    def plan(config):
        problem = build_problem(config)
        return [run_of(config, problem, list(problem.data.task_names))]

    ((one,), (other,)) = (run_arm(w, config, 1).seeds[0].runs for w in (JOINT, Way("all", plan)))
    assert one.metrics == other.metrics
    assert all(torch.equal(one.backbone[n], other.backbone[n]) for n in one.backbone)


def test_settings_are_those_of_these_tasks(tmp_path):
    config = digits(
        tmp_path,
        data={**MIX, "target_scale": {"ink": "none"}},
        losses={"digit": {"name": "focal"}},
        balance={"options": {"weights": {"ink": 0.5, "digit": 2.0, "loop": 1.0}}},
        strategy={"min_clients": 7},
    )
    made, problem = run_of(config, build_problem(config), ["loop", "ink"])
    assert made.balance.options["weights"] == {"ink": 0.5, "loop": 1.0}
    assert made.data.target_scale == {"ink": "none"} and not made.losses
    assert {task.name for task in problem.tasks} == {"ink", "loop"}
    assert made.strategy.min_clients == int((problem.data.sizes > 0).sum()) < 7


def test_a_task_that_nobody_trains_is_one_line(tmp_path):
    config = digits(tmp_path, data=MIX)
    problem = build_problem(config)
    problem.data.sizes[problem.data.tasks[:, problem.data.task_names.index("ink")]] = 0
    with pytest.raises(UserError, match="task 'ink': no client has a training example"):
        run_of(config, problem, ["loop", "ink"])
