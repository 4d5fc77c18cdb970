"""Suites: the numbers of their comparisons, and that what is done is not done again."""

import json
import subprocess
import sys

import pytest
from handmade import printed

from fedjoint.cli import main
from fedjoint.config.scenario import scenario_config
from fedjoint.config.suite import suite_config
from fedjoint.errors import UserError
from fedjoint.experiments import jobs, kept
from fedjoint.experiments.compare import compare
from fedjoint.experiments.suite import entries, run_suite
from fedjoint.experiments.suite_table import show_suite
from fedjoint.registry import registered

SUITE = """
name = "mine"
seeds = 1
tune = 0
smoke = ["rounds=1"]
[comparisons.few]
scenario = "digits"
set = ["rounds=2", "data.clients=4", 'data.task_mix=[["digit"], ["ink"]]', "local.path=sequential"]
[comparisons.csv]
scenario = "own.toml"
tune = 2
"""
OWN = """
rounds = 2
[data]
partition = "natural"
clients_are_tasks = true
source.name = "csv"
source.options = { path = "own.csv", targets = { y = "multiclass" }, client_column = "who" }
[local]
path = "sequential"
[model.backbone.options]
hidden = [4]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i % 3},{i % 7 / 7:.3f},{i * 5 % 11},{i * 13 % 5 % 2}" for i in range(120)]
    (tmp_path / "own.csv").write_text("\n".join(["who,a,b,y", *rows]) + "\n")
    (tmp_path / "own.toml").write_text(OWN)
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path


def planned(folder, **more):
    return entries(suite_config("mine.toml"), folder / "out", **more)


def silent(found, config, folder):
    """Write no report."""


def counted(monkeypatch, most=None):
    """Count the runs that are trained; interrupt the one after ``most``."""
    done, simulate = [], kept.simulate

    def run(config, problem):
        if most is not None and len(done) == most:
            raise KeyboardInterrupt
        done.append(config.name)
        return simulate(config, problem)

    monkeypatch.setattr(kept, "simulate", run)
    return done


def numbers(rows):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def test_a_suite_has_the_numbers_of_its_comparisons(own):
    rows = run_suite(planned(own, only=["few"], seeds=2), silent, workers=1)
    settings = [*suite_config("mine.toml").comparisons["few"].set, "engine.name=inline", "name=few"]
    found = compare(scenario_config("digits", [*settings, f"output.dir={own / 'runs'}"]), 2)
    assert [row["task"] for row in rows] == ["digit", "ink", "Delta-m %"]
    by_row = {(row["task"], row["arm"]): row for row in found.rows}
    gains = {(row["part"], row["on"]): row["gain"] for row in found.gains()}
    for row in rows[:2]:
        for arm in ("alone", "per task", "joint", "auto", "centralised"):
            expected = by_row[row["task"], arm]
            assert row[arm] == pytest.approx(expected["test"])
            assert row[f"{arm} 95 %"] == pytest.approx(expected["test 95 %"])
            assert row[f"{arm} rounds"] == expected["rounds to target"]
            assert row[f"{arm} steps"] == expected["steps to target"]
        assert row["joint - per task"] == pytest.approx(gains["transfer across tasks", row["task"]])
        best = max(row[arm] for arm in ("alone", "per task", "joint"))
        assert row["auto - best other"] == pytest.approx(row["auto"] - best)
    assert rows[2]["joint - alone"] == pytest.approx(gains["both", "Delta-m %"])
    text = printed(lambda console: show_suite(rows, console))
    assert "few: digit" in text and "reached" in text


def test_what_is_done_is_not_done_again(own, monkeypatch):
    done = counted(monkeypatch)
    rows = run_suite(planned(own), silent, workers=1)
    # few: alone, joint and centralised, and two runs per task; csv: three arms, of which each tries
    # two rates.
    assert len(done) == 3 + 2 + 3 * (2 + 1)
    assert run_suite(planned(own), silent, workers=1) == rows
    assert len(done) == 14
    assert not list((own / "out").rglob("running-*"))


def test_an_interrupted_suite_goes_on_with_the_runs_that_are_missing(own, monkeypatch):
    done = counted(monkeypatch, most=9)  # within the second comparison
    with pytest.raises(KeyboardInterrupt):
        run_suite(planned(own), silent, workers=1)
    assert (own / "out" / "few" / "done.json").exists()
    assert not (own / "out" / "csv" / "done.json").exists()
    monkeypatch.undo()
    monkeypatch.chdir(own)
    more = counted(monkeypatch)
    rows = run_suite(planned(own), silent, workers=1)
    assert len(done) + len(more) == 14
    assert {row["comparison"] for row in rows} == {"few", "csv"}


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_arms_that_are_trained_beside_one_another_have_the_same_numbers(own, monkeypatch):
    done = counted(monkeypatch)  # in this process
    rows = run_suite(planned(own, only=["csv"]), silent, workers=2)
    assert done == []
    alone = run_suite(planned(own / "alone", only=["csv"]), silent, workers=1)
    assert numbers(alone) == numbers(rows) and len(done) == 9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 3}, "few was begun in .*, and seeds is not as before: bring that back"),
        ({"settings": ["rounds=3"]}, "few was begun in .*, and rounds is not as before"),
        ({"tune": 2}, "few was begun in .*tune.* not as before"),
    ],
)
def test_another_suite_is_not_put_into_the_folder(own, monkeypatch, change, words):
    for entry in planned(own, only=["few"]):
        entry.folder.mkdir(parents=True)
    monkeypatch.setattr(kept, "simulate", lambda config, problem: pytest.fail("trained"))
    with pytest.raises(pytest.fail.Exception):
        run_suite(planned(own, only=["few"]), silent, workers=1)
    with pytest.raises(UserError, match=words):
        run_suite(planned(own, only=["few"], **change), silent, workers=1)


def test_other_data_are_refused_before_anything_is_trained(own, monkeypatch):
    run_suite(planned(own, only=["csv"]), silent, workers=1)
    text = (own / "own.csv").read_text()
    (own / "own.csv").write_text(text.replace("0,0.000,0,0", "0,0.001,0,0", 1))
    monkeypatch.setattr(kept, "simulate", lambda config, problem: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"csv was begun in .*, and the data have changed"):
        run_suite(planned(own), silent, workers=1)


MERGE = """
import fedjoint
class Merge(fedjoint.JointStrategy):
    def merge(self, updates):
        return {factor} * updates.mean()
"""


@pytest.mark.slow
def test_edited_code_is_not_answered_from_what_is_kept(own):
    start = "from fedjoint.cli import main; main()"
    words = ["suite", "mine.toml", "--only=csv", "--tune=0", "--workers=1", "--output=a"]
    words = [sys.executable, "-c", start, *words, "--set", "strategy.name=merge.py:Merge"]

    def run():  # a process of its own, as each has imported the file once
        return subprocess.run(words, cwd=own, capture_output=True, text=True, check=False)

    (own / "merge.py").write_text(MERGE.format(factor=1.0))
    assert run().returncode == 0
    folder = own / "a" / "suite-mine" / "csv"
    first = {path.name for path in (folder / "kept").iterdir()}
    (own / "merge.py").write_text(MERGE.format(factor=0.5))
    refused = run()
    assert refused.returncode == 2
    said = " ".join(refused.stderr.split())
    assert "and the code of merge.py:Merge is not as before" in said, said
    # The records themselves go by the code, too.
    for name in ("begun.json", "done.json"):
        (folder / name).unlink()
    assert run().returncode == 0
    both = {path.name for path in (folder / "kept").iterdir()}
    assert first < both and len(both) == len(first) + 2  # alone, there is nothing to merge


def test_damaged_records_are_named(own):
    run_suite(planned(own, only=["csv"]), silent, workers=1)
    (own / "out" / "csv" / "done.json").unlink()
    path = min((own / "out" / "csv" / "kept").glob("*.json"))
    path.write_text("[{}]")
    with pytest.raises(UserError, match=rf"csv: .*{path.name}: damaged .* delete it"):
        run_suite(planned(own, only=["csv"]), silent, workers=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "a"\nseed = 1\n[comparisons.x]\nscenario = "digits"', "seed: .*keys are name, "),
        ('name = "a"\n[comparisons]', "comparisons: .*at least 1"),
        ('name = "a/b"\n[comparisons.x]\nscenario = "digits"', "'a/b' names a folder"),
        ('name = "a"\n[comparisons.x]\nscenario = "digit"', "comparison x: unknown scenario 'dig"),
        (
            'name = "a"\n[comparisons.x]\nscenario = "digits"\nset = ["ronds=1"]',
            "comparison x: .*did you mean 'rounds'",
        ),
    ],
)
def test_a_wrong_suite_is_one_line(tmp_path, text, words):
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(UserError, match=words):
        entries(suite_config(str(tmp_path / "wrong.toml")), tmp_path)


def test_names_that_are_not_there(own):
    with pytest.raises(UserError, match=r"unknown suite 'texts': .*did you mean 'text'"):
        suite_config("texts")
    with pytest.raises(UserError, match="mine has no comparison ten: it has few, csv"):
        planned(own, only=["ten"])


@pytest.mark.parametrize("name", registered("suites"))
def test_the_comparisons_of_a_suite_are_in_order(name, tmp_path):
    suite = suite_config(name)
    assert suite.name == name
    for smoke in (False, True):
        for entry in entries(suite, tmp_path, smoke=smoke):
            assert entry.config.engine.name == "inline" and entry.config.name == entry.name
            assert (entry.search is None) == smoke


def test_the_command_leaves_a_table_plots_and_comparisons(own, monkeypatch, capsys):
    words = ["suite", "mine.toml", "--smoke", "--workers", "1", "--output", "out"]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["fedjoint", *words])
        with pytest.raises(SystemExit) as exit:
            main()
        assert not exit.value.code
        assert "few: digit" in capsys.readouterr().out
    folder = own / "out" / "suite-mine-smoke"
    table = (folder / "suite.csv").read_text().splitlines()
    assert len(table) == 1 + 3 + 3 and "joint - per task 95 %" in table[0]
    assert (folder / "gains.png").stat().st_size > 1000
    for name in ("few", "csv"):
        assert "gain on the test data" in (folder / name / "report.txt").read_text()
        assert {"compare.csv", "gains.csv", "convergence.png"} <= {
            path.name for path in (folder / name).iterdir()
        }
    assert json.loads((folder / "few" / "begun.json").read_text())["seeds"] == 1


def test_no_more_are_at_work_than_asked_for_and_the_next_starts_as_one_ends(monkeypatch):
    started, ended = [], []

    def wait(references, num_returns):
        ended.append(max(references))  # the youngest ends first
        return [ended[-1]], []

    monkeypatch.setattr("ray.wait", wait)
    line = jobs._Line(lambda job: started.append(job) or job, 2)
    numbers = [line.add(job) for job in range(5)]
    assert started == [0, 1]
    assert line.wait(numbers[1]) == 1 and started == [0, 1, 2]
    assert line.wait(numbers[0]) == 0
    assert ended == [1, 2, 3, 4, 0] and started == [0, 1, 2, 3, 4]
    assert [line.wait(number) for number in numbers[2:]] == [2, 3, 4]


def test_what_a_suite_decides_itself_cannot_be_set(own):
    for setting in ("name=other", "engine.name = ray"):
        with pytest.raises(UserError, match=f"--set {setting}: a suite names its runs"):
            planned(own, settings=[setting])
