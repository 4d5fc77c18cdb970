"""Every scenario is complete; the text and the tabular one hold the data they say."""

import runpy
import sys

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from fedjoint.config.data import DataConfig
from fedjoint.config.load import check
from fedjoint.config.scenario import scenario_config
from fedjoint.errors import UserError
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate
from fedjoint.simulations import tabular, text


def _lines(times, *lines):
    """Each line several times, made different by its last word."""
    return "".join(f"{line} w{i}\n" for i in range(times) for line in lines)


QUESTIONS = ["0 how is it ?", "1 what film ?", "2 what is it short for ?"]
QUESTIONS += ["3 who was he ?", "4 where ?", "5 how far ?"]
SENTENCES = {
    "TREC.train.all": _lines(20, *QUESTIONS),
    "TREC.test.all": "".join(f"{question} other\n" for question in QUESTIONS),
    "mpqa.all": _lines(30, "0 complaining", "1 is happy"),
    "rt-polarity.all": _lines(30, "0 silly and tedious .", "1 a great film ."),
}


@pytest.fixture
def sentences(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "text"
    folder.mkdir(parents=True)
    for name, lines in SENTENCES.items():
        (folder / name).write_text(lines)
    (folder / "stsa.binary.train").write_text("1 a great film .\n")
    monkeypatch.setenv("FEDJOINT_DATA", str(tmp_path / "data"))
    return folder


@pytest.mark.parametrize("name", ["digits", "conflict", "tabular", "text", "unlike"])
def test_a_scenario_is_a_script_and_trains_every_task(
    name, sentences, tmp_path, monkeypatch, capsys
):
    settings = ["data.clients=12", "data.min_examples=1", f"output.dir={tmp_path / 'runs'}"]
    words = [word for setting in settings for word in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", [name, "--rounds", "2", "--engine", "inline", *words])
    # As in a new process.
    monkeypatch.delitem(sys.modules, f"fedjoint.simulations.{name}", raising=False)
    values = runpy.run_module(f"fedjoint.simulations.{name}", run_name="__main__")
    result = values["result"]
    assert [record.round for record in result.records] == [1, 2]
    tasks = [task.name for task in build_problem(result.config).tasks]
    assert list(result.metrics["test"]) == tasks and len(tasks) > 1
    assert all(result.records[-1].loss[task] > 0 for task in tasks)
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "objective.png").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert f"{name}: after 2 rounds" in shown and shown.count("round 2: objective") == 1


def test_a_mistake_in_a_script_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["digits", "--set", "ronds=2"])
    monkeypatch.delitem(sys.modules, "fedjoint.simulations.digits", raising=False)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("fedjoint.simulations.digits", run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert "did you mean 'rounds'" in line


def test_text_has_a_task_per_kind_of_sentence(sentences):
    tree = text.config()
    tree["data"] |= {"clients": 6}
    problem = build_problem(check(tree))
    assert [(task.name, task.outputs) for task in problem.tasks] == [
        ("TREC", 6),
        ("mpqa", 2),
        ("rt-polarity", 2),
    ]
    assert (problem.data.tasks.sum(1) == 1).all()
    parts = [problem.data.client(i) for i in range(6)]
    held = sum(len(c.train) + len(c.valid) + len(c.test) for c in parts)
    assert held == sum(lines.count("\n") for lines in SENTENCES.values())


def test_text_learns_separable_sentences(sentences, tmp_path):
    tree = text.config()
    tree |= {"rounds": 10, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
    tree["data"] |= {"clients": 6}
    metrics = simulate(tree).metrics["test"]
    # Guessing is right half of the time on polarity, a sixth on questions.
    assert all(value and value > 0.9 for value in metrics.values()), metrics


def test_text_without_data_says_how_to_set_it(sentences, tmp_path, monkeypatch):
    (sentences / "mpqa.all").unlink()
    with pytest.raises(UserError, match=r"mpqa\.all: no such file or folder; .*FEDJOINT_DATA"):
        build_problem(scenario_config("text", []))
    monkeypatch.delenv("FEDJOINT_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"shared/data/text/TREC\.train\.all: .*FEDJOINT_DATA"):
        build_problem(scenario_config("text", []))


def test_text_reads_files_of_one_s_own_without_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDJOINT_DATA", str(tmp_path / "nowhere"))
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(_lines(20, f"0 {name} good", f"1 {name} bad"))
    own = [f"data.source.options.path={[str(tmp_path / f'{n}.txt') for n in ('one', 'two')]}"]
    problem = build_problem(scenario_config("text", [*own, "data.clients=4"]))
    assert [task.name for task in problem.tasks] == ["one", "two"]
    assert problem.data.tasks.tolist() == [[True, False], [False, True]] * 2


def test_tabular_holds_the_patients_and_hides_the_answers():
    found = load_breast_cancer()
    values = dict(zip(found.feature_names, found.data.T, strict=True))
    examples = tabular.Patients().load(DataConfig()).examples
    assert int(examples.y["malignant"].sum()) == 212  # Wolberg et al.: 357 are benign
    for task, column in (("texture", "worst texture"), ("concavity", "worst concavity")):
        np.testing.assert_allclose(examples.y[task].numpy()[:, 0], values[column], rtol=1e-6)
        (scale,) = [own.scale for own in tabular.TASKS if own.name == task]
        agreed = [values[column].mean(), values[column].std()]
        np.testing.assert_allclose(np.ravel(scale), agreed, rtol=1e-2)
        for x in examples.x.numpy().T:
            assert not np.allclose(x, values[column])


def test_tabular_gives_every_patient_to_one_clinic():
    config = scenario_config("tabular", ["seed=4"])
    problem = build_problem(config)
    assert problem.data.tasks.sum(1).tolist() == [1, 1, 2, 2] * 3
    clinics = [problem.data.client(i) for i in range(12)]
    assert sum(len(c.train) + len(c.valid) + len(c.test) for c in clinics) == 569
    for clinic in clinics:
        x = clinic.train.x.double()
        assert x.mean(0).abs().max() < 1e-4


def test_tabular_learns_the_diagnosis(tmp_path):
    settings = ["engine.name=inline", "rounds=15", f"output.dir={tmp_path}"]
    metrics = simulate(scenario_config("tabular", settings)).metrics["test"]
    # Saying benign to everyone is right for 63 % of the patients.
    for task, least in (("malignant", 0.85), ("texture", 0.3), ("concavity", 0.3)):
        value = metrics[task]
        assert value and value > least, task
