"""Which tasks help which: by hand, and in a scenario where it is known."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from camps import camps
from handmade import ACCURACY, ERROR, UP, arm, curve, printed
from scipy import stats

from fedjoint import cli
from fedjoint.cli.affinity import affinity_command
from fedjoint.errors import UserError
from fedjoint.experiments import plots
from fedjoint.experiments.affinity import Affinity, affinity, agreement
from fedjoint.experiments.show_affinity import show_affinity

TASKS = (UP, ERROR, ACCURACY)

#: cosines of up and size, up and kind, size and kind
COSINES = (-0.5, 0.2, None)


def made(values, *, cosines=COSINES):
    """Return the arms with these test metrics: arm -> task -> by seed."""
    arms = {}
    for name, metrics in values.items():
        tasks = tuple(task for task in TASKS if task.name in metrics)
        runs = [
            curve(**{f"test_{task}": [found[seed]] for task, found in metrics.items()})
            for seed in range(3)
        ]
        arms[name] = arm(name, *runs, tasks=tasks)
    a, b, c = cosines
    told = {
        "ids": [task.name for task in TASKS],
        "cosine": [[1, a, b], [a, 1, c], [b, c, 1]],
    }
    for seed in arms["all"].seeds:
        (run,) = seed.runs
        run.records[:] = [replace(r, diagnostics={"tasks": told}) for r in run.records]
    return Affinity(arms.pop("all"), arms, overlap=0.25)


JOINT = {"up": [0.5, 0.6, 0.7], "size": [2.0, 2.5, 2.0], "kind": [0.9, 0.8, 0.9]}
WITHOUT = {
    "up": {"size": [1.0, 1.4, 1.1], "kind": [0.8, 0.8, 0.7]},
    "size": {"up": [0.8, 0.8, 0.95], "kind": [0.9, 0.8, 0.9]},
    "kind": {"up": [0.2, 0.35, 0.45], "size": [2.0, 2.0, math.nan]},
}


def test_effects_are_with_a_task_less_without_it():
    found = made({"all": JOINT, **WITHOUT})
    up_on_size = np.subtract(WITHOUT["up"]["size"], JOINT["size"])  # an error: less is better
    size_on_up = np.subtract(JOINT["up"], WITHOUT["size"]["up"])
    both = (up_on_size + size_on_up) / 2
    assert (both < 0).all()
    rows = {(row["of"], row["on"]): row for row in found.rows()}
    assert len(rows) == 6
    row = rows["up", "size"]
    half = stats.t.ppf(0.975, 2) * math.sqrt((1 / 3 + 0.25) * np.var(both, ddof=1))
    assert row["effect"] == pytest.approx(up_on_size.mean())
    assert rows["size", "up"]["effect"] == pytest.approx(size_on_up.mean())
    assert (row["both"], row["both 95 %"]) == pytest.approx((both.mean(), half))
    assert row["cosine"] == -0.5 and row["seeds"] == 3
    advice = {(one, other): row["advice"] for (one, other), row in rows.items()}
    assert advice["up", "size"] == advice["size", "up"] == "do not share"
    assert advice["up", "kind"] == "share"
    # A seed in which a metric is undefined leaves the pair open, and its mean unknown.
    assert advice["size", "kind"] == "not settled"
    assert math.isnan(rows["kind", "size"]["effect"]) and math.isnan(rows["kind", "size"]["both"])
    assert rows["size", "kind"]["effect"] == 0
    assert found.agreement == (pytest.approx(1.0), 2)  # of three pairs, two have both


def test_a_pair_whose_interval_holds_zero_is_not_settled():
    without = {**WITHOUT, "kind": {**WITHOUT["kind"], "up": [0.2, 0.9, 0.45]}}
    pairs = {(p.first, p.second): p for p in made({"all": JOINT, **without}).pairs}
    pair = pairs["up", "kind"]
    assert pair.both.mean > 0 and pair.both.half > pair.both.mean
    assert pair.advice == "not settled"


def test_a_pair_that_all_seeds_moved_alike_is_not_settled():
    alike = {
        name: {task: [JOINT[task][0] - 0.01] * 3 for task in per_task}
        for name, per_task in WITHOUT.items()
    }
    joint = {task: values[:1] * 3 for task, values in JOINT.items()}
    found = made({"all": joint, **alike})
    pairs = {(p.first, p.second): p for p in found.pairs}
    pair = pairs["up", "kind"]
    assert pair.both.half == 0 and pair.both.mean != 0 and pair.advice == "not settled"
    text = printed(lambda console: show_affinity(found, 0.05, console))
    assert "seeds that all moved alike settle nothing" in text


def test_the_rank_correlation_is_spearman_s():
    rng = np.random.default_rng(0)
    first, second = rng.permutation(12) / 3.0, rng.permutation(12) - 7.0
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    by_hand = 1 - 6 * np.square(ranks[0] - ranks[1]).sum() / (12 * (12**2 - 1))
    found = agreement(list(zip(first, second, strict=True)))
    assert found == (pytest.approx(by_hand), 12)
    tied = [(1.0, 2.0), (1.0, 3.0), (2.0, 3.0), (3.0, 1.0), (math.nan, 1.0), (1.0, math.nan)]
    expected = stats.pearsonr(stats.rankdata([1, 1, 2, 3]), stats.rankdata([2, 3, 3, 1]))
    assert agreement(tied) == (pytest.approx(expected.statistic), 4)


@pytest.mark.parametrize("pairs", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0), (1.0, 1.0)]])
def test_where_a_measure_is_constant_there_is_none(pairs):
    assert agreement(pairs) == (None, len(pairs))


def test_what_is_printed_and_drawn(tmp_path):
    found = made({"all": JOINT, **WITHOUT})
    text = printed(lambda console: show_affinity(found, 0.05, console))
    assert "settled" in text and "-1.000 ± 0.329" in text
    assert "over 2 pairs: +1.00" in " ".join(text.split()) and "untuned" in text
    plots.affinity(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0
    nothing = made({"all": JOINT, **WITHOUT}, cosines=(None, None, None))
    text = printed(lambda console: show_affinity(nothing, 0.05, console))
    assert "no rank correlation" in text and "0 pairs have both" in " ".join(text.split())


# Where it is known


def test_opposed_tasks_hurt_one_another_and_equal_ones_help(tmp_path, monkeypatch, capsys):
    config = camps(tmp_path, monkeypatch, 3)
    monkeypatch.setattr(cli.affinity, "scenario_config", lambda *_, output__dir: config)
    affinity_command("conflict", seeds=1, output=None)
    (folder,) = tmp_path.glob("affinity-*")
    with (folder / "affinity.csv").open() as file:
        rows = list(csv.DictReader(file))
    equal = {"task0", "task1"}
    signs = {(row["of"], row["on"]): 1 if {row["of"], row["on"]} == equal else -1 for row in rows}
    assert len(signs) == 6
    for row in rows:
        sign = signs[row["of"], row["on"]]
        assert all(sign * float(row[measure]) > 0 for measure in ("effect", "both", "cosine"))
        assert row["advice"] == "not settled"  # by one seed
    assert (folder / "affinity.png").is_file()
    assert str(folder) in capsys.readouterr().out.replace("\n", "")


@pytest.mark.slow
def test_several_seeds_settle_it(tmp_path, monkeypatch):
    found = affinity(camps(tmp_path, monkeypatch, 3), 3)
    assert found.overlap == 0  # every seed draws its own data
    advice = {(pair.first, pair.second): pair.advice for pair in found.pairs}
    assert advice.pop(("task0", "task1")) == "share"
    assert set(advice.values()) == {"do not share"}
    assert found.agreement.rank > 0 and found.agreement.pairs == 3


def test_too_few_tasks_or_no_diagnostics_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("fedjoint.experiments.arms.simulate", None)
    with pytest.raises(UserError, match="three tasks or more, and there are 2"):
        affinity(camps(tmp_path, monkeypatch, 2), 1)
    with pytest.raises(UserError, match=r"diagnostics.every = 5: .* set it from 1 to 4"):
        affinity(camps(tmp_path, monkeypatch, 3, "diagnostics.every=5"), 1)
