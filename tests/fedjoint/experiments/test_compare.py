"""The parts of the gain and the verdict, by hand; whole comparisons on small data."""

import csv
import math

import numpy as np
import pytest
from handmade import ACCURACY, ERROR, arm, both, curve, digits, final, printed, two_tasks, wide
from scipy import stats

from fedjoint.config.scenario import scenario_config
from fedjoint.errors import UserError
from fedjoint.experiments.compare import Comparison, compare
from fedjoint.experiments.contestants import More
from fedjoint.experiments.show_compare import show_compare
from fedjoint.experiments.verdict import verdict
from fedjoint.problem import build_problem
from fedjoint.runs.files import write_csv


def comparison(joint, alone, per_task=None, overlap=0.0):
    arms = [alone, *([per_task] if per_task else []), joint]
    return Comparison({arm.name: arm for arm in arms}, overlap)


def row_of(rows, **where):
    (row,) = (row for row in rows if where.items() <= row.items())
    return row


# Numbers


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_intervals_are_students_or_corrected(overlap):
    values = [0.8, 0.9, 0.85, 0.7]
    alone = final("alone", 0.5, 0.5, 0.5, 0.5)
    rows = comparison(final("joint", *values), alone, overlap=overlap).rows
    row = row_of(rows, task="kind", arm="joint")
    half = stats.t.ppf(0.975, 3) * math.sqrt((1 / 4 + overlap) * np.var(values, ddof=1))
    assert (row["test"], row["test 95 %"]) == pytest.approx((np.mean(values), half))
    assert row["train - test"] == pytest.approx(0.1)


def test_the_cost_to_reach_what_alone_reaches_by_hand():
    # Rounds of 1.5 MB and half a second, evaluated at 2, 4, ...; see handmade.curve.
    alone = arm("alone", curve(steps=10, test_kind=[0.4, 0.5]), curve(test_kind=[0.5, 0.6]))
    joint = arm("joint", curve(steps=7, test_kind=[0.5, 0.7]), curve(test_kind=[0.3, 0.5]))
    found = comparison(joint, alone)
    assert found.costs_to_target(joint, ACCURACY) == [(2, 14, 3.0, 1.0)]
    assert found.costs_to_target(alone, ACCURACY) == [(4, 40, 6.0, 2.0), (4, 0, 6.0, 2.0)]
    row = row_of(found.rows, task="kind", arm="joint")
    assert (row["rounds to target"], row["reached"]) == (2, 1)
    assert [row[f"{what} to target"] for what in ("steps", "MB", "seconds")] == [14, 3.0, 1.0]
    never = comparison(final("joint", 0.1), final("alone", 0.5))
    row = row_of(never.rows, task="kind", arm="joint")
    assert [row[f"{what} to target"] for what in ("rounds", "steps")] == ["", ""]


def test_an_error_should_fall():
    tasks = (ERROR,)
    alone = arm("alone", curve(test_size=[3, 2], train_size=[1, 1]), tasks=tasks)
    joint = arm("joint", curve(test_size=[2.5, 1.5], train_size=[1, 1]), tasks=tasks)
    found = comparison(joint, alone)
    assert [cost.rounds for cost in found.costs_to_target(joint, ERROR)] == [4]
    gain = row_of(found.gains(), part="both", on="size")
    assert gain["gain"] == 0.5 and row_of(found.gains(), on="Delta-m %")["gain"] == 25.0
    assert row_of(found.rows, task="size", arm="alone")["train - test"] == 1.0  # fits better


def test_the_gain_is_split_in_two():
    alone = both("alone", [0.5, 0.4, 0.5], [2.0, 2.0, 2.5])
    alike = both("per task", [0.8, 0.6, 0.7], [1.0, 1.5, 1.5])
    joint = both("joint", [0.7, 0.6, 0.6], [0.5, 1.5, 2.0])
    found = comparison(joint, alone, alike, 0.25)
    parts = {
        "more data for the task": (alone, alike),
        "transfer across tasks": (alike, joint),
        "both": (alone, joint),
    }
    rows = found.gains()
    assert [row["part"] for row in rows] == [part for part in parts for _ in range(4)]
    p_values = {}
    for part, (first, second) in parts.items():
        up = np.subtract(second.best("up"), first.best("up"))
        size = np.subtract(first.best("size"), second.best("size"))
        relative = 50 * (up / first.best("up") + size / first.best("size"))
        for on, values in {"up": up, "size": size, "Delta-m %": relative}.items():
            row = row_of(rows, part=part, on=on)
            error = math.sqrt((1 / 3 + 0.25) * np.var(values, ddof=1))
            assert row["gain"] == pytest.approx(np.mean(values))
            assert row["gain 95 %"] == pytest.approx(stats.t.ppf(0.975, 2) * error)
            p_values[part, on] = 2 * stats.t.sf(abs(np.mean(values)) / error, 2)
        wins = np.mean([(up > 0) + (up == 0) / 2, (size > 0) + (size == 0) / 2])
        assert row_of(rows, part=part, on="tasks won")["gain"] == pytest.approx(wins)
    # Holm: of the three Delta-m, the least times three; of two tasks, the least times two.
    overall = {part: p_values[part, "Delta-m %"] for part in parts}
    least = min(overall, key=overall.get)
    found = row_of(rows, part=least, on="Delta-m %")["p"]
    assert found == pytest.approx(3 * overall[least])
    pair = p_values["both", "up"], p_values["both", "size"]
    found = [row_of(rows, part="both", on=on)["p"] for on in ("up", "size")]
    assert found[int(np.argmin(pair))] == pytest.approx(2 * min(pair))
    assert max(found) == pytest.approx(max(2 * min(pair), max(pair)))


def test_what_a_seed_of_each_arm_takes():
    spread = {"kind": {"clients": 4, "std": 0.25, "worst": 0.125, "worst_tenth": 0.2}}
    joint = arm("joint", curve(spread, 100, test_kind=[0.5], train_kind=[0.5]))
    alone = arm("alone", curve(test_kind=[0.5], train_kind=[0.5]))
    rows = comparison(joint, alone).rows
    row = row_of(rows, task="mean", arm="joint")
    assert (row["steps"], row["steps per client"], row["MB"], row["seconds"]) == (200, 100, 3, 1)
    assert row["learning rate"] == 0.1
    assert row_of(rows, task="mean", arm="alone")["steps"] == 0
    row = row_of(rows, task="kind", arm="joint")
    assert (row["std"], row["worst client"], row["worst tenth"]) == (0.25, 0.125, 0.2)


# The verdict


NOISE = [0.0, 0.01, -0.01, 0.005]


def around(name, value):
    return final(name, *(value + noise for noise in NOISE))


def shifted(name, value):
    """Return an arm whose gains over ``around`` are nearly the same in every seed."""
    return final(name, *(value + noise + 0.001 * at for at, noise in enumerate(NOISE)))


def test_a_part_helps_and_another_hurts():
    found = comparison(shifted("joint", 0.8), around("alone", 0.7), final("per task", *[0.9] * 4))
    data, transfer, whole = verdict(found)
    assert data.startswith("More data for the task (alone to per task): helps, Delta-m +")
    assert "better in 100% of tasks and seeds" in data and "Worse" not in data
    assert transfer.startswith("Transfer across tasks (per task to joint): hurts, Delta-m -")
    assert transfer.endswith("Worse on kind.")
    assert whole.startswith("Both (alone to joint): helps, Delta-m +")


@pytest.mark.parametrize(
    ("joint", "alone", "words"),
    [
        ([0.8, 0.81, 0.82], [0.7, 0.71, 0.72], "helps, Delta-m +14.09"),
        ([0.8, 0.7], [0.7, 0.7], "may help, the seeds do not settle it, Delta-m +7.14"),
        ([0.8], [0.7], "may help, one seed does not settle it"),
        ([0.6, 0.7], [0.7, 0.71], "may hurt, the seeds do not settle it, Delta-m -7"),
        ([0.8, 0.81, math.nan], [0.7, 0.7, 0.7], "nobody can tell"),
        ([0.6, 0.612, 0.62], [0.7, 0.71, 0.72], "hurts, Delta-m -13.99"),
        (
            [0.5, 0.5],
            [0.4, 0.4],
            "may help, seeds that all moved alike do not settle it, Delta-m +25",
        ),
        (
            [0.4, 0.4],
            [0.5, 0.5],
            "may hurt, seeds that all moved alike do not settle it, Delta-m -20",
        ),
    ],
)
def test_the_verdict_follows_the_interval_and_not_the_sign(joint, alone, words):
    (said,) = verdict(comparison(final("joint", *joint), final("alone", *alone)))
    assert said.startswith(f"Both (alone to joint): {words}"), said
    assert ("Worse on kind." in said) == words.startswith("hurts")


def test_what_several_comparisons_take_back_is_said():
    # Two parts that are beyond doubt, and one with p = 0.04: times one, it still stands.
    alone, per_task = final("alone", 0.5, 0.5, 0.5), final("per task", 0.6, 0.6, 0.601)
    found = comparison(final("joint", 0.7, 0.72, 0.74), alone, per_task)
    assert "transfer across tasks" in found.parts
    assert all(" hel" in line for line in verdict(found))
    # Alone p = 0.04 in a family of three.
    values = 1 + np.array([-1.0, 0.0, 1.0]) * 0.36
    values = (0.5 * (1 + values / 100)).tolist()
    one = comparison(final("joint", *values), alone)
    three = comparison(final("joint", *values), alone, final("per task", *values))
    assert verdict(one)[0].startswith("Both (alone to joint): helps")
    assert "not settle it beside the other comparisons" in verdict(three)[0]
    assert "may help" in verdict(three)[0]


def test_a_correction_for_overlap_takes_a_claim_back():
    joint, alone = final("joint", 0.8, 0.81, 0.85), final("alone", 0.7, 0.7, 0.7)
    (plain,) = verdict(comparison(joint, alone))
    (corrected,) = verdict(comparison(joint, alone, overlap=2.0))
    assert ": helps," in plain and ": may help, the seeds do not settle it," in corrected


# Whole comparisons


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [0, 180])
def test_opposed_tasks_hurt_one_another_and_equal_ones_do_not(tmp_path, degrees):
    # Little to train on: alone, a client cannot even out the noise. Enough to test on.
    settings = ["engine.name=inline", f"output.dir={tmp_path}", "diagnostics.every=0"]
    settings += ["rounds=8", "evaluate.every=8", "data.clients=8", "data.task_mix=[]"]
    settings += ["data.examples_per_client=26", "data.test_fraction=0.5"]
    settings += ["data.source.options.noise=0.5"]
    settings += [f"data.source.options.conflict_degrees={degrees}"]
    config = scenario_config("conflict", settings)
    found = compare(config, 4)
    assert list(found.arms) == ["alone", "per task", "joint", "auto", "centralised"]
    assert found.overlap == 0.0  # every seed draws its own data
    data, transfer, whole, *rest = verdict(found)
    assert any("no upper reference" in line for line in rest) == (degrees == 180)
    assert ": helps," in data and "Worse" not in data
    assert (": hurts," in transfer) == (": hurts," in whole) == (degrees == 180)
    assert transfer.endswith("Worse on task0, task1.") == (degrees == 180)
    assert (": helps," in whole) == (degrees == 0)


@pytest.mark.slow
def test_bytes_are_backbones_down_and_up(tmp_path):
    config = digits(tmp_path)
    found = compare(config, 1, more=More(full=True))
    size = build_problem(config).model(config).layout().size
    assert found.arms["joint"].megabytes == [7 * 4 * size * 3 * 2 / 1e6]
    # Of seven clients, the fifth and the sixth have two tasks.
    assert found.arms["per task"].megabytes == [9 * 4 * size * 3 * 2 / 1e6]
    assert list(found.arms)[-2:] == ["centralised", "centralised per task"]
    for name in ("alone", "centralised", "centralised per task"):
        assert found.arms[name].megabytes == [0]
    data = build_problem(config).data
    tested = sum(len(data.client(i).test) for i in range(7))
    assert found.overlap == pytest.approx(tested / data.sizes.sum())
    plain = compare(two_tasks(tmp_path, rounds=1), 1, corrected=False)
    assert plain.overlap == 0


def test_with_one_task_the_arm_is_left_out_in_words(tmp_path):
    config = digits(tmp_path, data={"clients": 4, "task_mix": [["digit"]]}, rounds=1)
    found = compare(config, 2, more=More(full=True))
    assert list(found.arms) == ["alone", "joint", "auto", "centralised"]
    assert list(found.parts) == ["both", "choice by validation"]
    assert len(verdict(found)) == 3
    text = printed(lambda console: show_compare(found, 0.05, console))
    assert "per task is left out: with one task, it is joint training" in text
    assert "centralised per task is left out: with one task" in text


PICKY = """
import fedjoint
class Picky(fedjoint.JointStrategy):
    def __init__(self, least: int = 5):
        super().__init__()
        self.least = least
    def merge(self, updates):
        if len(updates.matrix) < self.least:
            raise ValueError("too few")
        return updates.mean()
"""


def test_a_rule_that_a_task_has_too_few_clients_for_leaves_the_arm_out(tmp_path):
    (tmp_path / "picky.py").write_text(PICKY)
    name = f"{tmp_path / 'picky.py'}:Picky"
    config = two_tasks(tmp_path, strategy={"name": name}, rounds=1)
    found = compare(config, 1)
    assert list(found.arms) == ["alone", "joint", "auto", "centralised"]
    assert found.left_out["per task"].endswith("Picky: too few")
    config = two_tasks(tmp_path, strategy={"name": name, "options": {"least": 9}}, rounds=1)
    with pytest.raises(UserError, match="no round has merged; the last one: Picky: too few"):
        compare(config, 1)


# Tables


def test_nothing_is_cut_at_80_columns():
    names = {"alone": -2.0, "per task": 0.5, "joint": -1.0, "centralised": 0.25}
    arms = {name: wide(name, value) for name, value in names.items()}
    found = Comparison(arms, 0.25, {"x": "no [such]"})
    text = printed(lambda console: show_compare(found, 0.05, console))
    assert text.count("-2.100 ± 3.615") == 6 and text.count("per task") > 10
    assert "x is left out: no [such]" in text and "untuned" in text
    # Of two rounds: each arm's in all, and until it reaches the target of each of five tasks.
    assert text.count("24,690") == 4 + 4 * 5 and text.count("12,345") == 4  # of two clients
    assert text.count("-9.50") == 20 and text.count("-8.25") == 20 and text.count("0.12") >= 20


def test_rows_are_numbers_in_the_file(tmp_path):
    found = comparison(final("joint", 0.8, 0.9), final("alone", 0.7, 0.7))
    write_csv(found.rows, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [(row["task"], row["arm"]) for row in read] == [
        (task, arm) for task in ("kind", "mean") for arm in ("alone", "joint")
    ]
    assert float(read[1]["test"]) == pytest.approx(0.85) and float(read[-1]["MB"]) == 3.0
