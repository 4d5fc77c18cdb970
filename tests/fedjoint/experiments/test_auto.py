"""What validation data pick among arms, by hand."""

import math
from dataclasses import replace

import pytest
from handmade import ERROR, UP, arm, curve

from fedjoint.experiments.arms import Arm, Trained
from fedjoint.experiments.auto import auto, in_words
from fedjoint.experiments.compare import Comparison
from fedjoint.experiments.verdict import verdict

TASKS = (UP, ERROR)  # more is better, less is better


def two(name, *seeds):
    """Return an arm of (valid up, test up, valid size, test size) by seed."""
    runs = [
        curve(steps=10, valid_up=[a], test_up=[b], valid_size=[c], test_size=[d])
        for a, b, c, d in seeds
    ]
    return arm(name, *runs, tasks=TASKS)


def test_each_task_and_seed_has_the_arm_that_is_best_on_its_validation_data():
    alone = two("alone", (0.5, 0.1, 3.0, 9.0), (0.9, 0.2, 1.0, 8.0))
    joint = two("joint", (0.6, 0.3, 2.0, 7.0), (0.8, 0.4, 2.0, 6.0))
    found = auto([alone, joint])
    assert found.best("up") == [0.3, 0.2]
    assert found.best("size") == [7.0, 8.0]
    assert found.picks("up") == {"joint": 1, "alone": 1}
    assert found.rounds("up") == [2, 2] and found.curve(0, "size") == [(2, 7.0)]
    assert list(in_words(found))[1] == "auto: size: joint (1), alone (1) of 2 seeds"
    assert found.steps == [20, 20]  # one run has both tasks


def test_of_equals_the_first_is_picked_and_what_is_undefined_never():
    nan = math.nan
    alone = two("alone", (0.5, 0.1, nan, 9.0))
    joint = two("joint", (0.5, 0.3, 2.0, 7.0))
    found = auto([alone, joint])
    assert (found.best("up"), found.best("size")) == ([0.1], [7.0])
    assert found.steps == [40]  # of two runs, one for each task


def test_a_task_alone_keeps_its_own_best_round():
    run = curve(
        valid_up=[0.5, 0.4], test_up=[0.1, 0.2], valid_size=[3.0, 1.0], test_size=[3.0, 1.0]
    )
    alone = arm("alone", run, tasks=TASKS)
    alone.alone = True
    found = auto([alone, two("joint", (0.1, 0.9, 9.0, 9.0))])
    assert (found.rounds("up"), found.rounds("size")) == ([2], [4])
    assert (found.best("up"), found.best("size")) == ([0.1], [1.0])


@pytest.mark.parametrize(
    ("test", "said"), [(0.9, "on no task worse"), (0.2, "worse than the best")]
)
def test_the_verdict_says_where_it_is_worse_than_the_best_arm(test, said):
    shift = [0.0, 0.01, 0.02]
    alone = two("alone", *((0.5 + s, 0.5 + s, 1.0, 1.0) for s in shift))
    joint = two("joint", *((0.9 + s, test + 1.1 * s, 1.0, 1.0) for s in shift))
    arms = {each.name: each for each in (alone, joint, auto([alone, joint]))}
    (line,) = (line for line in verdict(Comparison(arms)) if line.startswith("Auto"))
    assert said in line
    assert ("up (alone is better" in line) == (test < 0.5)


def test_clients_that_are_tasks_share_the_arm_of_the_best_pooled_round():
    one, other = replace(UP, name="up 0"), replace(UP, name="up 1")

    def of(pooled, first, second):
        run = curve(
            valid_up=pooled, **{"valid_up 0": first, "valid_up 1": second, "test_up": pooled}
        )
        made = arm("joint", run, tasks=(one, other))
        made.pooled = replace(UP, name="up")  # another object in every arm
        return made

    alone, joint = of([0.4, 0.6], [0.9, 0.1], [0.9, 0.1]), of([0.7, 0.5], [0.1, 0.2], [0.1, 0.2])
    alone.name, alone.alone = "alone", True
    # The joint run's best round by its clients' own data is the second, by the pooled the first.
    assert joint.best("up", "valid") == [0.5] and joint.peak(UP) == [0.7]
    found = auto([alone, joint])
    assert found.picks("up 0") == found.picks("up 1") == found.picks("up") == {"joint": 1}


def test_runs_of_groups_of_clients_pool_over_none():
    one, other = replace(UP, name="up 0"), replace(UP, name="up 1")
    runs = [
        curve(valid_up=[0.9], test_up=[0.9], **{f"valid_{t.name}": [0.5], f"test_{t.name}": [0.5]})
        for t in (one, other)
    ]
    groups = Arm("groups", (one, other), [Trained(tuple(runs), 2)], pooled=UP)
    assert groups.best("up 1") == [0.5] and math.isnan(groups.best("up")[0])
    assert math.isnan(groups.peak(UP)[0]) and groups.curve(0, "up") == []
    assert groups.cost_to(0, "up", 0.0) is None


def test_the_verdict_claims_nothing_of_one_seed_or_of_undefined_metrics():
    nan = math.nan
    for seeds in ([(0.5, 0.5, 1.0, 1.0)], [(0.5, nan, 1.0, nan), (0.5, nan, 1.0, nan)]):
        arms = [two(name, *seeds) for name in ("alone", "joint")]
        found = Comparison({each.name: each for each in (*arms, auto(arms))})
        assert "Whether auto is worse than the best other arm, this does not tell." in verdict(
            found
        )


def test_the_verdict_of_two_arms_that_are_the_same_is_no_difference():
    arms = [two(name, *[(0.5, 0.5, 1.0, 1.0)] * 3) for name in ("alone", "joint")]
    found = Comparison({each.name: each for each in (*arms, auto(arms))})
    assert any("makes no difference" in line for line in verdict(found))
    assert "Auto is on no task worse" in verdict(found)[-1]
