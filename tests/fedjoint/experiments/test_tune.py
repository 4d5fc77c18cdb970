"""What tuning tries and chooses: every arm as much, by validation data alone."""

import csv
import math

import numpy as np
import pytest
from handmade import ACCURACY, ERROR, UP, arm, curve, digits, printed, two_tasks

from fedjoint.cli.compare import bench_command, compare_command
from fedjoint.errors import UserError
from fedjoint.experiments import tune as tuning
from fedjoint.experiments.arms import Arm, Trained, Way
from fedjoint.experiments.centralised import CENTRALISED
from fedjoint.experiments.compare import compare
from fedjoint.experiments.per_task import PER_TASK
from fedjoint.experiments.search import RATE, Choice, Range, Search, read_search, trials
from fedjoint.experiments.show_compare import show_compare
from fedjoint.experiments.tune import Tuner, tune
from fedjoint.experiments.ways import ALONE, JOINT, as_it_is
from fedjoint.problem import build_problem

# What is tried


def test_the_learning_rate_is_searched_in_any_case(tmp_path):
    config = digits(tmp_path)
    search = read_search(config, 4, ["strategy.options.server_lr=0.5,1,2"])
    assert search.over[RATE] == Range(0.05 / 16, 0.2)
    assert search.over["strategy.options.server_lr"] == Choice((0.5, 1, 2))
    assert read_search(config, 2, [f"{RATE}=0.01..1"]).over == {RATE: Range(0.01, 1.0)}
    assert read_search(config, 2, ["model.norm=local,shared"]).over["model.norm"] == Choice(
        ("local", "shared")
    )


def test_one_setting_is_a_grid_on_a_log_scale():
    points = Search(5, {RATE: Range(0.01, 100.0)}).points([RATE], 0)
    assert points[0] == {}  # the scenario's own
    rates = [point[RATE] for point in points[1:]]
    assert rates == pytest.approx([10 ** (-1.5), 10 ** (-0.5), 10**0.5, 10**1.5], rel=0.01)


def test_several_settings_are_a_latin_hypercube_of_the_seed():
    search = Search(7, {RATE: Range(1.0, 64.0), "b": Choice(("x", "y", "z"))})
    points = search.points([RATE, "b"], 3)
    assert len(points) == 7 and points == search.points([RATE, "b"], 3)
    assert points != search.points([RATE, "b"], 4)
    levels = np.log2([point[RATE] for point in points[1:]])
    assert sorted(levels) == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5, 5.5], abs=0.02)
    assert sorted(point["b"] for point in points[1:]) == ["x", "x", "y", "y", "z", "z"]


def test_every_arm_tries_as_many_of_what_concerns_it(tmp_path):
    config = digits(tmp_path, strategy={"name": "fedavgm"})
    texts = ["strategy.options.server_lr=0.5,1,2", "local.lr_decay=0.9,1.0"]
    search = read_search(config, 6, texts)
    keys = {}
    for way in (ALONE, PER_TASK, JOINT, CENTRALISED):
        points = trials(way, config, search, 1)
        assert len(points) == 6
        keys[way.name] = set(points[1])
    assert keys["alone"] == keys["centralised"] == {RATE, "local.lr_decay"}
    assert keys["joint"] == keys["per task"] == set(search.over)
    median = config.model_copy(
        update={"strategy": config.strategy.model_copy(update={"name": "median"})}
    )
    assert set(trials(Way("median", as_it_is), median, search, 1)[1]) == keys["alone"]


@pytest.mark.parametrize(
    ("trials", "over", "words"),
    [
        (1, [], "--tune 1: give 2 trials or more"),
        (-3, [], "--tune -3: give 2 trials or more"),
        (3, ["local.lr_decay"], "write key.path=low..high or key.path=a,b,c"),
        (3, ["=1,2"], "write key.path=low..high"),
        (3, ["data.clients=3,4"], "data.clients must be the same for every arm"),
        (3, ["seed=3,4"], "seed must be the same for every arm"),
        (3, ["rounds=3,4"], "rounds must be the same for every arm"),
        (3, ["local.epochs=1,2"], "local.epochs must be the same for every arm"),
        (3, ["local.lr_decay=0..1"], "give a range of positive numbers, say 0.01..1"),
        (3, ["local.lr_decay=1..0.1"], "give a range of positive numbers"),
        (3, ["local.lr_decay=a..b"], "give a range of positive numbers"),
        (3, ["local.lr_decay=0.9"], "give two values or more, each once"),
        (3, ["local.lr_decay=0.9,0.9"], "give two values or more, each once"),
        (3, ["local.lr_decay=0.9,1.0", "local.lr_decay=0.8,1.0"], "is given twice"),
        (3, ["local.lr_dekay=0.9,1.0"], "did you mean 'lr_decay'"),
        (3, ["local.lr_decay=0.9,7.0"], "lr_decay"),
        (3, ["strategy.options.mu=1,2"], "no arm has such a setting; leave it out"),
        (3, ["strategy.options.server_lr=1,-2"], "server_lr"),
    ],
)
def test_a_wrong_search_is_one_line_before_anything_is_trained(
    tmp_path, monkeypatch, trials, over, words
):
    monkeypatch.setattr("fedjoint.experiments.arms.simulate", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        compare_command("digits", tune=trials, tune_over=over)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_belongs_together_is_asked_for_together(tmp_path, monkeypatch):
    monkeypatch.setattr("fedjoint.experiments.arms.simulate", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--tune-over belongs to --tune N"):
        compare_command("digits", tune_over=["local.lr_decay=0.9,1.0"])
    with pytest.raises(UserError, match=r"--tune needs validation data: set data\.valid_fraction"):
        compare_command("digits", tune=2, settings=["data.valid_fraction=0"])
    assert not list(tmp_path.glob("runs/*/runs"))


# What is chosen


def scripted(monkeypatch, outcomes):
    """Let trials end in ``outcomes``: learning rate -> task_split metrics, or an error."""
    asked = []

    def run_arm(way, config, seeds):
        rate = config.local.optimiser.lr
        asked.append((rate, config.seed, seeds, config.evaluate.train, config.rounds))
        outcome = outcomes[rate]
        if isinstance(outcome, str):
            raise UserError(outcome)
        return arm(way.name, curve(**outcome), tasks=(UP, ERROR))

    monkeypatch.setattr(tuning, "run_arm", run_arm)
    return asked


def points(*rates):
    return [{}] + [{RATE: rate} for rate in rates]


def outcome(up, size, test=0.0):
    return {"valid_up": [up], "valid_size": [size], "test_up": [test], "test_size": [test]}


def test_validation_data_of_a_further_seed_choose_and_test_data_do_not(tmp_path, monkeypatch):
    outcomes = {0.05: outcome(0.6, 2.0, 0.9), 0.1: outcome(0.9, 1.0), 0.2: outcome(0.7, 3.0, 1.0)}
    asked = scripted(monkeypatch, outcomes)
    config = digits(tmp_path, seed=5, evaluate={"train": True})
    found = tune(JOINT, config, points(0.1, 0.2), (UP, ERROR), 8)
    assert asked == [(rate, 8, 1, False, 3) for rate in (0.05, 0.1, 0.2)]
    assert found.best == 1 and found.config.local.optimiser.lr == 0.1
    # What was chosen is otherwise the arm's own.
    assert (found.config.seed, found.config.evaluate.train) == (5, True)
    rows = found.rows()
    assert [row[RATE] for row in rows] == [0.05, 0.1, 0.2]
    # up ranks 3, 1, 2; size, which should fall, 2, 1, 3.
    assert [row["mean rank"] for row in rows] == [2.5, 1.0, 2.5]
    assert [row["valid size"] for row in rows] == [2.0, 1.0, 3.0]
    assert [row["chosen"] for row in rows] == [False, True, False]


def test_one_unbounded_metric_does_not_choose_alone(tmp_path, monkeypatch):
    tasks = (UP, ACCURACY, ERROR)
    outcomes = {
        0.05: {"up": 0.1, "kind": 0.5, "size": 1.0},
        0.1: {"up": -500.0, "kind": 0.9, "size": 0.5},
    }

    def run_arm(way, config, seeds):
        valid = {f"valid_{t}": [v] for t, v in outcomes[config.local.optimiser.lr].items()}
        return Arm(way.name, tasks, [Trained((curve(**valid),), 1)])

    monkeypatch.setattr(tuning, "run_arm", run_arm)
    assert tune(JOINT, digits(tmp_path), points(0.1), tasks, 1).best == 1


def test_a_trial_that_loses_a_metric_or_fails_is_not_chosen(tmp_path, monkeypatch):
    outcomes = {0.05: outcome(0.4, 2.0), 0.1: outcome(0.9, None), 0.2: "diverged"}
    scripted(monkeypatch, outcomes)
    found = tune(ALONE, digits(tmp_path), points(0.1, 0.2), (UP, ERROR), 1)
    assert found.best == 0
    assert [trial.failed for trial in found.trials] == ["", "", "diverged"]
    assert math.isnan(found.trials[2].valid["up"])
    scripted(monkeypatch, {0.05: "diverged", 0.1: "no luck"})
    with pytest.raises(UserError, match="alone: no trial could be trained; the last one: no luck"):
        tune(ALONE, digits(tmp_path), points(0.1), (UP, ERROR), 1)


def test_without_a_search_nothing_is_tuned(tmp_path):
    config = digits(tmp_path)
    tuner = Tuner(None, build_problem(config), 1, lambda name, seed: None)
    assert tuner.settings(JOINT, config) is config and not tuner.found


# Whole comparisons


@pytest.mark.slow
def test_all_arms_are_tuned_alike_and_the_files_say_how(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = [
        "rounds=1",
        "data.clients=6",
        "model.backbone.options.hidden=[4]",
        "engine.name=inline",
    ]
    settings.append("data.task_mix=[['digit'], ['ink']]")
    compare_command("digits", seeds=1, tune=2, full=True, settings=settings)
    (file,) = tmp_path.glob("runs/*/tuning.csv")
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    arms = ["alone", "per task", "joint", "centralised", "centralised per task"]
    assert [row["arm"] for row in rows] == [arm for arm in arms for _ in range(2)]
    assert {row[RATE] for row in rows} == {"0.05", "0.025"}
    assert {row["seed"] for row in rows} == {"1"}  # seed 0 is tested
    assert {name for name in rows[0] if name.startswith("valid ")} == {"valid digit", "valid ink"}
    chosen = {row["arm"]: row[RATE] for row in rows if row["chosen"] == "True"}
    assert list(chosen) == arms
    with (file.parent / "compare.csv").open() as opened:
        rates = {row["arm"]: row["learning rate"] for row in csv.DictReader(opened)}
    assert rates.pop("trivial") == rates.pop("auto") == "" and rates == chosen
    assert (file.parent / "gains.csv").is_file()
    said = capsys.readouterr().out
    assert "tuned alike" in said and "untuned" not in said and "Transfer across tasks" in said


@pytest.mark.slow
def test_strategies_are_tuned_by_their_own_options(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = [
        "rounds=1",
        "data.clients=6",
        "model.backbone.options.hidden=[4]",
        "engine.name=inline",
    ]
    settings.append("data.task_mix=[['digit'], ['ink']]")
    over = ["strategy.options.server_lr=0.5,1.0", f"{RATE}=0.01,0.02"]
    bench_command("digits", "fedavg,median", seeds=1, tune=3, tune_over=over, settings=settings)
    (file,) = tmp_path.glob("runs/*/tuning.csv")
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["arm"] for row in rows] == [
        arm for arm in ("alone", "per task", "fedavg", "median") for _ in range(3)
    ]
    servers = {row["arm"]: set() for row in rows}
    for row in rows:
        servers[row["arm"]].add(row["strategy.options.server_lr"])
    assert servers["alone"] == servers["median"] == {""}
    assert servers["fedavg"] == servers["per task"] == {"default", "0.5", "1.0"}
    assert "tuned alike" in capsys.readouterr().out


def test_untuned_is_said(tmp_path):
    found = compare(two_tasks(tmp_path, rounds=1), 1)
    text = printed(lambda console: show_compare(found, 0.05, console))
    said = "untuned: every arm takes the scenario's own settings, local.optimiser.lr = 0.05"
    assert said in " ".join(text.split())
