"""Transfer: the gain over a reference, in closed form on records that are made up."""

import json
from dataclasses import replace

import pytest

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.model.metrics import METRICS
from fedjoint.model.tasks import Task
from fedjoint.runs.directory import RunDir
from fedjoint.server.reference import Reference
from fedjoint.simulation import simulate

TREE = {
    "rounds": 4,
    "data": {"clients": 4, "examples_per_client": 20, "task_mix": [["digit", "ink"]]},
    "model": {"hidden": [4]},
    "evaluate": {"every": 2},
    "engine": {"name": "inline"},
}


def alone(folder, tests, **tables):
    """Make up a run of independent training with the test metrics of ``tests``, by round."""
    run = RunDir.create(folder, "alone", check({**TREE, **tables}))
    for round, test in tests.items():
        run.append({"round": round, "evaluation": test and {"test": test}})
    return str(run.path)


def test_the_sign_is_such_that_more_is_better(tmp_path):
    path = alone(
        tmp_path,
        {1: None, 2: {"hits": 0.5, "error": 0.5, "rare": None}, 4: {"hits": 0.25, "error": 3.0}},
    )
    lower = replace(METRICS["r2"], name="error", higher_is_better=False)
    tasks = [
        Task("hits", "multiclass", 3),
        Task("error", "regression", 1, metric=lower),
        Task("rare", "multiclass", 2),
    ]
    reference = Reference(path, check(TREE))
    reference.check(tasks)
    test = {"hits": 0.75, "error": 0.75, "rare": 1.0}
    assert reference.transfer(2, test, tasks) == {"hits": 0.25, "error": -0.25, "rare": None}
    test = {"hits": 0.125, "error": 1.0, "rare": 1.0}
    assert reference.transfer(4, test, tasks) == {"hits": -0.125, "error": 2.0, "rare": None}
    test = {"hits": None, "error": 1.0}
    assert reference.transfer(4, test, tasks) == {"hits": None, "error": 2.0, "rare": None}
    assert reference.transfer(1, test, tasks) == {"hits": None, "error": None, "rare": None}


@pytest.mark.parametrize("every", [0, 3])
def test_a_run_records_it_with_every_evaluation(tmp_path, every):
    theirs = {2: {"digit": 0.5, "ink": -1.0}, 4: {"digit": None, "ink": 0.5}}
    path = alone(tmp_path, theirs)
    result = simulate(
        {
            **TREE,
            "diagnostics": {"every": every, "reference": path},
            "output": {"dir": str(tmp_path)},
        }
    )
    for record in result.records:
        round, said = record.round, record.diagnostics or {}
        assert ("clients" in said) == (every == 3 and round == 3)
        if round % 2:
            assert "transfer" not in said
            continue
        own = record.evaluation["test"]
        assert said["transfer"]["ink"] == own["ink"] - theirs[round]["ink"]
        assert said["transfer"]["digit"] == (own["digit"] - 0.5 if round == 2 else None)


def test_a_run_of_independent_training_is_a_reference_to_itself(tmp_path):
    tree = {**TREE, "local": {"method": "independent"}, "output": {"dir": str(tmp_path)}}
    first = simulate(tree)
    again = simulate({**tree, "diagnostics": {"reference": str(first.path)}})
    transfer = [r.diagnostics["transfer"] for r in again.records if r.evaluation]
    assert transfer == [{"digit": 0.0, "ink": 0.0}] * 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: str(folder / "nowhere"), "nowhere: no such folder"),
        (lambda folder: str(folder), "not a run directory"),
        (lambda folder: alone(folder, {1: None}), "has no evaluation"),
        (lambda folder: alone(folder, {2: {"digit": 1.0}}, seed=1), "has another seed"),
        (
            lambda folder: alone(folder, {2: {"digit": 1.0}}, data={"clients": 5}),
            "has another data",
        ),
        (
            lambda folder: alone(folder, {2: {"digit": 1.0}}),
            "has tasks ['digit'], not ['ink']",
        ),
    ],
)
def test_another_run_is_refused_at_the_start(tmp_path, make, words):
    config = {
        **TREE,
        "diagnostics": {"reference": make(tmp_path)},
        "output": {"dir": str(tmp_path / "out")},
    }
    with pytest.raises(UserError) as error:
        simulate(config)
    said = str(error.value)
    assert said.startswith("diagnostics.reference: ") and words in said and "\n" not in said
    for folder in (tmp_path / "out").glob("*"):  # tasks are known once nodes have been asked
        assert json.loads((folder / "run.json").read_text())["status"] == "failed"
        assert not RunDir(folder).records()
