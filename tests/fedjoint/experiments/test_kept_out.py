"""Clients that are kept out of training are kept out once, and alike for every arm."""

import pytest
from handmade import digits

from fedjoint.experiments.arms import run_arm
from fedjoint.experiments.centralised import CENTRALISED
from fedjoint.experiments.per_task import PER_TASK
from fedjoint.experiments.ways import ALONE, JOINT
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate


@pytest.mark.parametrize("way", [ALONE, JOINT, PER_TASK, CENTRALISED])
def test_every_arm_trains_those_who_are_left(tmp_path, way):
    mix = [["digit"], ["digit", "ink"]]
    data = {"clients": 8, "test_fraction": 0.6, "unseen_clients": 3, "task_mix": mix}
    config = digits(tmp_path, rounds=1, data=data)
    arm = run_arm(way, config, 1)
    problem = build_problem(config)
    expected = (problem.data.sizes > 0) & problem.data.tasks[:, 0]
    record = arm.seeds[0].of("digit").records[-1]
    if way is not CENTRALISED:  # which is one client
        assert arm.seeds[0].clients == 5
        assert sorted(record.clients.ids) == expected.nonzero()[0].tolist()


def test_a_problem_that_is_built_loses_nobody_more(tmp_path):
    config = digits(tmp_path, rounds=1, data={"clients": 7, "unseen_clients": 3})
    assert len(simulate(config, build_problem(config)).records[-1].clients.ids) == 4
