"""Clients as tasks: what each measured of its own is told, and compared, as a task's metric."""

import numpy as np
import pytest
import torch
from handmade import digits, printed

from fedjoint.errors import UserError
from fedjoint.experiments.affinity import affinity
from fedjoint.experiments.arms import run_arm
from fedjoint.experiments.client_tasks import compared
from fedjoint.experiments.compare import MEAN, compare
from fedjoint.experiments.contestants import More
from fedjoint.experiments.show_compare import show_compare
from fedjoint.experiments.subsets import run_of
from fedjoint.experiments.suite_table import rows_of
from fedjoint.experiments.trivial import trivial_by_client
from fedjoint.experiments.verdict import verdict
from fedjoint.experiments.ways import ALONE, JOINT
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate

_POOLED = ["parity", "accuracy", "groups"]
DATA = {"clients": 4, "test_fraction": 0.4, "valid_fraction": 0.2, "partition": "iid"}


def parity(tmp_path, **more):
    """Four clients with one task, each a task by itself, of a few rounds."""
    data = DATA | {"task_mix": [["parity"]], "clients_are_tasks": True, "examples_per_client": 40}
    return digits(tmp_path, data=data, **{"rounds": 2, **more})


def test_each_client_measures_what_its_own_model_predicts(tmp_path):
    config = parity(tmp_path, metrics={"parity": ["accuracy", "auroc"]})
    problem = build_problem(config)
    result = simulate(config, problem)
    model, heads = problem.model(config), result.heads()
    for id in range(4):
        client = problem.data.client(id)
        model.load_state_dict({**model.state_dict(), **result.backbone, **heads[id]}, strict=False)
        for split in ("train", "valid", "test"):
            examples = getattr(client, split)
            with torch.no_grad():
                predicted = model.eval()(examples.x)["parity"].argmax(1)
            right = float((predicted == examples.y["parity"]).double().mean())
            assert result.records[-1].own[split]["parity"][str(id)] == pytest.approx(right)
            assert 0 <= result.records[-1].own[split]["parity/AUROC"][str(id)] <= 1
    # Splits are of one size, so the pooled accuracy is the mean.
    own = result.records[-1].own["test"]["parity"]
    assert result.metrics["test"]["parity"] == pytest.approx(np.mean(list(own.values())))


def test_without_the_setting_no_client_is_told_of(tmp_path):
    config = digits(tmp_path, data=DATA | {"task_mix": [["parity"]]}, rounds=1)
    assert simulate(config).records[-1].own is None


def test_clients_with_several_tasks_are_none(tmp_path):
    config = digits(tmp_path, data={**DATA, "clients_are_tasks": True})
    with pytest.raises(UserError, match=r"clients_are_tasks: clients have one task .* digit, pari"):
        build_problem(config)


def test_a_comparison_has_clients_for_tasks(tmp_path):
    found = compare(parity(tmp_path), 2)
    names = [f"parity {id}" for id in range(4)]
    assert [task.name for task in found.tasks] == names and found.pooled.name == "parity"
    assert list(found.arms) == ["alone", "joint", "joint, whole model", "auto"]
    assert list(found.left_out) == ["per task", "per task, whole model", "centralised"]
    assert list(found.parts) == ["both", "heads of their own", "choice by validation"]
    joint, alone = found.arms["joint"], found.arms["alone"]
    # Alone, every client has the round that is best for it.
    for seed, trained in enumerate(alone.seeds):
        for id, name in enumerate(names):
            own = [r.own for r in trained.of(name).records if r.own]
            best = max(enumerate(own), key=lambda e: (e[1]["valid"]["parity"][str(id)], e[0]))[1]
            assert alone.best(name)[seed] == best["test"]["parity"][str(id)]
    means = [np.mean([joint.best(name)[seed] for name in names]) for seed in range(2)]
    assert joint.best("parity") == pytest.approx(means)
    for seed in range(2):  # one arm for all clients
        valid = {name: arm.best("parity", "valid")[seed] for name, arm in found.arms.items()}
        del valid["auto"]
        picked = found.arms["auto"].seeds[seed].sources
        assert {arm.name for arm, _ in picked.values()} == {max(valid, key=valid.__getitem__)}
    gains = {(row["part"], row["on"]): row["gain"] for row in found.gains()}
    by_client = [gains["both", name] for name in names]
    assert gains["both", MEAN] == pytest.approx(np.mean(by_client))
    rows = [row for row in found.rows if row["task"] == MEAN and row["arm"] == "joint"]
    assert [row["test"] for row in rows] == pytest.approx([np.mean(means)])
    text = printed(lambda console: show_compare(found, 0.05, console))
    assert "parity 0" not in text.split("Both (")[0] and "mean of clients" in text
    assert "auto: clients in 2 seeds" in text and verdict(found)[0].startswith("Both (alone to")
    tasks = [row["task"] for row in rows_of("one", found)]
    assert tasks == ["parity", "mean of clients", "Delta-m %"]


def test_constant_predictions_by_client_are_of_its_own_labels(tmp_path):
    problem = build_problem(parity(tmp_path))
    found = trivial_by_client(problem)
    right = 0
    for id in range(4):
        client = problem.data.client(id)
        most = client.train.y["parity"].bincount().argmax()
        hits = int((client.test.y["parity"] == most).sum())
        assert found[f"parity {id}"] == pytest.approx(hits / len(client.test))
        right += hits
    tests = sum(len(problem.data.client(id).test) for id in range(4))
    assert found["parity"] == pytest.approx(right / tests)


def test_some_clients_train_among_themselves(tmp_path):
    config = parity(tmp_path)
    problem = build_problem(config)
    made, some = run_of(config, problem, ["parity 1", "parity 3"])
    assert (some.data.sizes > 0).tolist() == [False, True, False, True]
    assert [task.name for task in compared(made, some)] == ["parity 1", "parity 3"]
    (record, *_) = simulate(made, some).records
    assert list(record.own["test"]["parity"]) == ["1", "3"]


@pytest.mark.slow
def test_groups_and_affinity_are_of_clients(tmp_path):
    config = parity(tmp_path, rounds=1)
    found = compare(config, 1, more=More(groups="parity 0+parity 2,parity 1+parity 3"))
    sizes = [
        len(run.records[-1].own["test"]["parity"]) for run in found.arms["groups"].seeds[0].runs
    ]
    assert sizes == [2, 2]
    text = printed(lambda console: show_compare(found, 0.05, console))
    # A run of some of the clients has no metric of all: that is no run that diverged.
    (row,) = (line for line in text.splitlines() if line.split()[:3] == _POOLED)
    assert row.split() == _POOLED
    assert "groups: nothing of all clients together" in text
    assert "nan (0 of 1)" not in text.split("gain on the test data")[0]
    chosen = compare(config, 1, more=More(groups="auto"))
    assert sum(len(run.records[-1].clients.ids) for run in chosen.arms["groups"].seeds[0].runs) == 4
    pairs = affinity(config, 1)
    assert pairs.names == [f"parity {id}" for id in range(4)]
    assert np.isfinite(pairs.cosines).all()


def test_an_arm_of_clients_has_the_cost_of_all_together(tmp_path):
    config = parity(tmp_path)
    for way in (ALONE, JOINT):
        arm = run_arm(way, config, 1)
        assert arm.pooled.name == "parity"
        assert arm.cost_to(0, "parity", 0.0).rounds == 1 and arm.cost_to(0, "parity", 2.0) is None
