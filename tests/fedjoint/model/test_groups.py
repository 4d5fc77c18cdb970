"""Groups from files: clients by number, a backbone each."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Config, Group, Problem, Task, UserError, export, simulate
from fedjoint.config.load import check
from fedjoint.problem import build_problem


def grouped(folder=None, **groups):
    own = {
        "small": {"clients": [0, 2], "backbone": {"options": {"hidden": [6]}}},
        "large": {"clients": [1], "backbone": {"options": {"hidden": [9, 6]}}},
    }
    tree = {
        "rounds": 1,
        "data": {"clients": 3, "task_mix": [["digit"]], "partition": "iid"},
        "model": {"groups": own | groups},
        "engine": {"name": "inline"},
        "output": {"dir": str(folder)},
    }
    return check(tree)


def test_every_client_of_a_group_trains_its_backbone(tmp_path):
    config = grouped(tmp_path)
    problem = build_problem(config)
    assert problem.group_names == ("large", "small") and problem.member.tolist() == [1, 0, 1]
    result = simulate(config)
    shapes = {name: tuple(t.shape) for name, t in result.backbone.items() if "weight" in name}
    assert sorted(shapes.values()) == [(6, 9), (6, 64), (9, 64)]
    assert result.metrics["test"]["digit"] is not None
    x = problem.data.client(0).test.x
    for model in (
        export(result.path, "digit", group="small"),
        export(result.path, "digit", client=1),
    ):
        with torch.no_grad():
            assert model.model(x).shape == (len(x), 10)
    assert export(result.path, "digit", group="small").card.origin.clients == [0, 2]
    with pytest.raises(UserError, match="in the groups large, small, each with a backbone"):
        export(result.path, "digit")
    with pytest.raises(UserError, match="unknown group 'tiny'"):
        export(result.path, "digit", group="tiny")


def test_a_node_has_the_groups_of_its_own_clients():
    assert build_problem(grouped(), [1, 0, 2]).member.tolist() == [0, 1, 1]
    few = grouped()
    few = few.model_copy(update={"data": few.data.model_copy(update={"clients": 2})})
    assert build_problem(few, [2, 0]).group_names == ("small",)
    with pytest.raises(UserError, match="client 1 is in no group"):  # by its place on the node
        build_problem(few, [2, 7])


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        ({"small": {"clients": [0]}}, "client 2 is in no group: name it in one of large, small"),
        ({"third": {"clients": [2]}}, "client 2 is in the groups 'small' and 'third'"),
        ({"third": {"clients": []}}, "group 'third': give the numbers of its clients"),
        ({"small": {"clients": [0, 2, 3]}}, "group 'small': there is no client 3 of 3"),
        ({"a b": {"clients": [2]}}, "a group is called 'a b'"),
        ({"common": {"clients": [2]}}, "a group is called 'common'"),
    ],
)
def test_what_is_wrong_with_groups_is_said_in_one_line(groups, line):
    with pytest.raises(UserError) as error:
        build_problem(grouped(**groups))
    assert line in str(error.value)


def test_a_group_s_model_has_heads_for_its_own_tasks_alone():
    """The head of another group's task may not fit its backbone at all."""
    tasks = [Task("kind", "multiclass", 2), Task("map", "segmentation", 2, size=(4, 4))]
    data = SimpleNamespace(
        task_names=("kind", "map"), sizes=np.array([3, 3]), tasks=np.eye(2, dtype=bool)
    )
    vector = Group([0], lambda: nn.Linear(5, 2), torch.zeros(1, 5))
    image = Group([1], lambda: nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 4, 4))
    problem = Problem.of_groups(tasks, data, {"vector": vector, "image": image})
    models = problem.models(Config())
    assert list(models["vector"].heads) == ["kind"] and list(models["image"].heads) == ["map"]
    data.tasks = np.ones((2, 2), bool)
    with pytest.raises(UserError, match="group 'vector': the head of task 'map'"):
        Problem.of_groups(tasks, data, {"vector": vector, "image": image}).models(Config())
