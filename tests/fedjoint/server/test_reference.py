"""Transfer: the gain over a reference, in closed form on records that are made up."""

import json
from dataclasses import replace

import pytest
from support.records import make_record

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.model.metrics.r2 import r2
from fedjoint.model.tasks import Task
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.ledger import Ledger
from fedjoint.server.reference import Reference
from fedjoint.simulation import simulate

WIDE = {"backbone": {"options": {"hidden": [8]}}}
TREE = {
    "rounds": 4,
    "data": {"clients": 4, "examples_per_client": 20, "task_mix": [["digit", "ink"]]},
    "model": {"backbone": {"options": {"hidden": [4]}}},
    "evaluate": {"every": 2},
    "engine": {"name": "inline"},
}


def alone(folder, tests, status="done", own_problem=False, **tables):
    """Make up a run of independent training with the test metrics of ``tests``, by round."""
    tree = {**TREE, "local": {"method": "independent"}, **tables}
    run = RunDir.create(folder, "alone", check(tree), own_problem=own_problem)
    records = [
        make_record(round, evaluation={"test": tests[round]} if tests.get(round) else None)
        for round in range(1, max(tests) + 1)
    ]
    for record in records:
        run.append(record)
    run.finish(Checkpoint(len(records), {}, {}, Ledger()), records)
    run.mark(status)
    return str(run.path)


SOUND = {2: {"digit": 1.0, "ink": 1.0}}


def test_the_sign_is_such_that_more_is_better(tmp_path):
    path = alone(
        tmp_path,
        {1: None, 2: {"hits": 0.5, "error": 0.5, "rare": None}, 4: {"hits": 0.25, "error": 3.0}},
    )
    lower = replace(r2, name="error", higher_is_better=False)
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


def other(what="", **tables):
    """Return a maker of a reference that differs by ``tables``, and what is said of it."""
    return lambda folder: alone(folder, SOUND, **tables), what


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: str(folder / "nowhere"), "nowhere: no such folder"),
        (lambda folder: str(folder), "not a run directory"),
        (lambda folder: alone(folder, {1: None}), "has no evaluation"),
        (
            lambda folder: alone(folder, {2: {"digit": 1.0}}),
            "has tasks ['digit'], not ['ink']",
        ),
        other("its local method is that of strategy fedavg, not independent", local={}),
        other("its local method is joint, not independent", local={"method": "joint"}),
        other("its seed is 1, here it is 0", seed=1),
        other("its data.clients is 5, here it is 4", data={**TREE["data"], "clients": 5}),
        other("its model.backbone.options.hidden is [8], here it is [4]", model=WIDE),
        other("its rounds is 5, here it is 4", rounds=5),
        other("its balance.name is dwa, here it is fixed", balance={"name": "dwa"}),
        other("its strategy.fraction is 0.5, here it is 1.0", strategy={"fraction": 0.5}),
        other("its evaluate.fraction is 0.5", evaluate={"every": 2, "fraction": 0.5}),
        *(
            other(f"its local.{key} is {value}, here", local={"method": "independent", key: value})
            for key, value in {"epochs": 2, "batch_size": 8, "lr_decay": 0.5}.items()
        ),
        other(
            "its local.epochs is None, here it is 1", local={"method": "independent", "steps": 3}
        ),
        other(
            "its local.optimiser.lr is 0.3, here it is 0.1",
            local={"method": "independent", "optimiser": {"lr": 0.3}},
        ),
        other("is not done, but failed", status="failed"),
        other("is not done, but running", status="running"),
        other("its problem was passed from Python for one of the two runs", own_problem=True),
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


def test_what_does_not_touch_training_alone_may_differ(tmp_path):
    path = alone(
        tmp_path,
        SOUND,
        strategy={"name": "fedavgm", "min_clients": 2},
        evaluate={"every": 4},
        diagnostics={"every": 0},
        local={"method": "independent", "path": "sequential"},
        name="another",
    )
    assert Reference(path, check({**TREE, "strategy": {"name": "fedprox"}})).test == SOUND
