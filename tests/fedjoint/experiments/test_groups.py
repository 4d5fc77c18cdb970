"""Groups of tasks: what the user names, and what validation data choose."""

import numpy as np
import pytest
import torch
from camps import camps
from handmade import ERROR, UP, curve, printed, two_tasks, wide
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from fedjoint.errors import UserError
from fedjoint.experiments.arms import Trained, run_arm
from fedjoint.experiments.compare import Comparison, compare
from fedjoint.experiments.contestants import More
from fedjoint.experiments.grouping import CHOSEN_GROUPS, best, cuts
from fedjoint.experiments.groups import in_groups, read_groups, shown
from fedjoint.experiments.per_task import PER_TASK
from fedjoint.experiments.show_compare import show_compare
from fedjoint.experiments.verdict import verdict
from fedjoint.experiments.ways import JOINT

# Groups by name


def test_groups_are_read():
    assert read_groups("a+b, c ,d + e", "abcde") == [["a", "b"], ["c"], ["d", "e"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("digit+inc", "unknown task in --groups 'inc': allowed are digit, ink; did you mean 'ink'"),
        ("digit", "--groups digit: ink is in no group; a task may be one by itself"),
        ("digit+ink,ink", "--groups digit[+]ink,ink: ink is there twice; put it in one group"),
        ("digit,,ink", "--groups digit,,ink: write tasks as in digit[+]parity,loop[+]ink"),
        ("", "--groups : write tasks as in"),
    ],
)
def test_wrong_groups_are_one_line_before_anything_is_trained(tmp_path, monkeypatch, text, words):
    monkeypatch.setattr("fedjoint.experiments.arms.simulate", None)
    with pytest.raises(UserError, match=words):
        compare(two_tasks(tmp_path), 1, more=More(groups=text))


def test_groups_of_one_are_per_task_and_one_of_all_is_joint(tmp_path):
    config = two_tasks(tmp_path, rounds=1)
    ways = {"digit,ink": PER_TASK, "ink+digit": JOINT}
    for text, way in ways.items():
        grouped, known = (
            run_arm(w, config, 1) for w in (in_groups(read_groups(text, ["digit", "ink"])), way)
        )
        for one, other in zip(grouped.seeds[0].runs, known.seeds[0].runs, strict=True):
            assert one.metrics == other.metrics
            assert all(torch.equal(one.backbone[n], other.backbone[n]) for n in one.backbone)
        assert grouped.seeds[0].clients == known.seeds[0].clients
        assert grouped.name == "groups" and shown(grouped) == ["+".join(sorted(text.split("+")))]


# Groups by validation data


def test_cuts_are_those_of_average_linkage():
    rng = np.random.default_rng(1)
    cosines = np.corrcoef(rng.standard_normal((7, 5)))
    names = list("abcdefg")
    found = cuts(cosines, names)
    tree = hierarchy.linkage(squareform(1 - cosines, checks=False), "average")
    for count, cut in enumerate(found, start=1):
        labels = hierarchy.fcluster(tree, count, "maxclust")
        expected = {tuple(n for n, m in zip(names, labels, strict=True) if m == c) for c in labels}
        assert {tuple(group) for group in cut} == expected and len(cut) == count
    assert len(found) == 7


def test_a_cosine_that_is_not_known_is_neither_near_nor_far():
    unknown = np.array([[1, np.nan, 0.3], [np.nan, 1, -0.3], [0.3, -0.3, 1]])
    assert cuts(unknown, list("abc"))[1] == [["a", "c"], ["b"]]
    with pytest.raises(UserError, match="--groups auto: no two tasks have a cosine"):
        cuts(np.full((3, 3), np.nan), list("abc"))


def test_the_mean_rank_on_validation_data_chooses_and_test_data_do_not():
    def cut(up, size, test):
        return (
            curve(valid_up=[up], test_up=[test]),
            curve(valid_size=[size], test_size=[-test]),
        )

    # Of size, an error, less is better: ranks 2.5, 1.5 and 2.
    made = [cut(0.1, 2.0, 9.0), cut(0.5, 1.9, 1.0), cut(0.2, 1.8, 5.0)]
    assert best(made, (UP, ERROR)) == 1
    assert best([cut(0.5, 1.0, 0.0), cut(0.5, 1.0, 1.0)], (UP, ERROR)) == 0  # the fewest
    assert best([cut(None, 1.0, 0.0), cut(0.1, 1.0, 0.0)], (UP, ERROR)) == 1


def test_opposed_tasks_come_apart(tmp_path, monkeypatch):
    config = camps(tmp_path, monkeypatch, 4, "diagnostics.every=0")
    found = run_arm(CHOSEN_GROUPS, config, 1)
    assert shown(found) == ["task0+task1,task2+task3"]
    (seed,) = found.seeds
    assert len(seed.runs) + len(seed.others) == 2 * 4 - 1 and seed.clients == 8


def test_auto_needs_validation_data(tmp_path, monkeypatch):
    monkeypatch.setattr("fedjoint.experiments.arms.simulate", None)
    config = two_tasks(tmp_path, data={"clients": 4, "valid_fraction": 0.0})
    with pytest.raises(UserError, match="--groups auto needs validation data"):
        compare(config, 1, more=More(groups="auto"))


# Comparisons


def test_what_groups_gain_is_printed_within_80_columns():
    values = {"alone": -2.0, "per task": 0.5, "groups": 0.75, "joint": -1.0}
    arms = {name: wide(name, value) for name, value in values.items()}
    (run,) = arms["alone"].seeds[0].runs
    arms["groups"].seeds = [Trained(s.runs, 2, (run,)) for s in arms["groups"].seeds]
    found = Comparison(arms, 0.25)
    assert list(found.parts)[-2:] == ["sharing within groups", "sharing across groups"]
    text = printed(lambda console: show_compare(found, 0.05, console))
    words = " ".join(text.split())
    assert "groups: digit+parity+loop+ink+centroid in 3 of 3 seeds" in words
    assert "3 runs of all seeds together took 74,070 steps and 3 s" in words  # two rounds each
    assert "within groups" in words and "across groups" in words


def test_with_one_task_there_are_no_groups(tmp_path):
    config = two_tasks(tmp_path, data={"clients": 4, "task_mix": [["digit"]]}, rounds=1)
    found = compare(config, 1, more=More(groups="auto"))
    assert found.left_out["groups"] == "with one task, it is joint training"


@pytest.mark.slow
def test_groups_gain_what_sharing_across_them_loses(tmp_path, monkeypatch):
    found = compare(camps(tmp_path, monkeypatch, 4), 3, more=More(groups="auto"))
    assert list(found.arms) == ["alone", "per task", "groups", "joint", "auto", "centralised"]
    *_, within, across = (line for line in verdict(found) if line.startswith("Sharing"))
    assert " help" in within and ": hurts," in across, (within, across)
    assert all("task0+task1" in groups for groups in shown(found.arms["groups"]))
