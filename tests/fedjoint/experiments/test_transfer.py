"""Transfer to a new task and to new clients, against plain PyTorch and by hand."""

import csv
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedjoint.cli import load_command
from fedjoint.config.load import check
from fedjoint.data.base import Client, Examples
from fedjoint.data.unseen import seen, unseen
from fedjoint.errors import UserError
from fedjoint.experiments.adapt import HEAD, TUNED, adapt
from fedjoint.experiments.transfer import WAYS, Subsets, transfer
from fedjoint.experiments.unseen import Unseen, _best, generalise
from fedjoint.model.tasks import Task
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate
from fedjoint.training.trainer import Trainer


def config(tmp_path, **more):
    tree = {
        "rounds": 2,
        "data": {"clients": 6, "task_mix": [["digit"], ["parity"]]},
        "model": {"backbone": {"options": {"hidden": [16]}}},
        "local": {"steps": 5, "batch_size": 16, "optimiser": {"lr": 0.1}},
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path)},
    }
    return check(tree | more)


@pytest.mark.parametrize("way", [HEAD, TUNED], ids=lambda way: way.name)
def test_adaptation_is_plain_sgd_on_the_head_or_on_all(tmp_path, way):
    # Batches of all examples: there is no order to draw.
    local = {"steps": 4, "batch_size": 1000, "optimiser": {"lr": 0.3}}
    made = config(tmp_path, local=local, data={"clients": 3, "task_mix": [["digit"]]})
    problem = build_problem(made)
    trainer = Trainer(problem, made, torch.device("cpu"))
    backbone = trainer.layout.flat(trainer.model.state_dict())
    (found,) = adapt(trainer, backbone, np.arange(3), steps=4, whole=way.whole, factor=0.5)
    for client in range(3):
        data, model = problem.data.client(client), problem.model(made)
        trained = model.parameters() if way.whole else model.heads.parameters()
        optimiser = torch.optim.SGD(trained, 0.15)
        for _ in range(4):
            optimiser.zero_grad()
            F.cross_entropy(model(data.train.x)["digit"], data.train.y["digit"]).backward()
            optimiser.step()
        with torch.no_grad():
            correct = model(data.test.x)["digit"].argmax(1) == data.test.y["digit"]
        (metric,) = (task.metric_fn for task in problem.tasks if task.name == "digit")
        measured = metric.value(found.statistics["test/digit"][client])
        assert measured == pytest.approx(float(correct.float().mean()))


def test_a_larger_training_set_holds_the_smaller_and_repeats_differ():
    x = torch.arange(40.0)[:, None]
    part = Examples(x, {"a": torch.arange(40) % 2})
    data = Subsets(Client(part, part, part), "a", [5, 20], 3, seed=7)
    sets = [set(data.client(i).train.x[:, 0].tolist()) for i in range(6)]
    assert [len(s) for s in sets] == [5, 5, 5, 20, 20, 20] == data.sizes.tolist()
    for repeat in range(3):
        assert sets[repeat] < sets[3 + repeat]
    assert len(set(map(frozenset, sets[:3]))) == 3
    assert len(data.client(0).valid) == 5 and len(data.client(0).test) == 40
    again = Subsets(Client(part, part, part), "a", [5], 3, seed=7)
    assert set(again.client(2).train.x[:, 0].tolist()) == sets[2]


def test_a_backbone_that_has_learnt_the_inputs_beats_a_fresh_one(tmp_path):
    run = simulate(
        config(
            tmp_path,
            rounds=30,
            data={"clients": 4, "task_mix": [["digit"]], "partition": "iid"},
            model={"backbone": {"options": {"hidden": [64, 32]}}},
        )
    )
    load_command("transfer").main(
        [str(run.path), "--task", "loop", "--sizes", "20,200", "--repeats", "3", "--steps", "40"],
        standalone_mode=False,
    )
    folder = run.path / "transfer" / "loop"
    with (folder / "transfer.csv").open() as file:
        rows = {(row["way"], int(row["examples"])): row for row in csv.DictReader(file)}
    assert len(rows) == 8 and (folder / "transfer.png").stat().st_size > 1000
    # Whether a digit has a loop is a function of the digit.
    scores = {key: float(row["test"]) for key, row in rows.items()}
    for way in ("head on the frozen backbone", "adapter", "fine-tuned"):
        assert scores[way, 200] > 0.75
        assert scores[way, 20] > scores["from scratch", 20] - 0.05
    assert scores["fine-tuned", 20] > scores["from scratch", 20]


def test_what_is_no_new_task_is_refused_in_one_line(tmp_path):
    run = simulate(config(tmp_path)).path
    for task, more, said in [
        ("digit", {}, "the run has trained 'digit', so it is not new"),
        ("nobody", {}, "unknown task.*'nobody'"),
        ("loop", {"sizes": [10**6]}, "--sizes 1000000: the task has .* training examples"),
        ("loop", {"settings": ["rounds=3"]}, "a transfer takes settings of data alone"),
    ]:
        with pytest.raises(UserError, match=said):
            transfer(run, task, **more)
    with pytest.raises(UserError, match="the run kept no client out"):
        generalise(run)
    for arguments, said in [
        ([], "name a new task by --task"),
        (["--task", "loop", "--unseen"], "name a new task by --task"),
        (["--task", "loop", "--steps", "1,2"], "give one number"),
        (["--task", "loop", "--sizes", "some"], "write whole numbers"),
        (["--unseen", "--sizes", "3"], "belong to --task"),
    ]:
        with pytest.raises(UserError, match=said):
            load_command("transfer").main([str(run), *arguments], standalone_mode=False)


def test_settings_of_the_run_s_own_tasks_are_not_the_new_one_s(tmp_path):
    data = {"clients": 4, "task_mix": [["digit"], ["ink"]], "target_scale": {"ink": "none"}}
    more = {"losses": {"digit": {"name": "focal"}}, "metrics": {"digit": ["macro_f1"]}}
    weights = {"name": "fixed", "options": {"weights": {"ink": 0.5}}}
    run = simulate(config(tmp_path, data=data, balance=weights, **more)).path
    found = transfer(run, "loop", sizes=[20], repeats=1, steps=2)
    assert {point.way.name for point in found.points} == {way.name for way in WAYS}


def test_a_run_of_several_architectures_is_refused(tmp_path):
    groups = {name: {"clients": clients} for name, clients in (("a", [0, 2]), ("b", [1, 3]))}
    data = {"clients": 4, "task_mix": [["digit"]], "unseen_clients": 1}
    run = simulate(config(tmp_path, data=data, model={"groups": groups})).path
    for adapts in (lambda: transfer(run, "loop"), lambda: generalise(run)):
        with pytest.raises(UserError, match=r"in groups .*: take a run without groups$"):
            adapts()


def test_clients_that_are_kept_out_neither_train_nor_count(tmp_path):
    made = config(tmp_path, data={"clients": 6, "task_mix": [["digit"]], "unseen_clients": 2})
    everyone = build_problem(config(tmp_path, data={"clients": 6, "task_mix": [["digit"]]})).data
    out = unseen(everyone, made)
    assert len(out) == 2
    data = seen(everyone, made)
    for client in range(6):
        own, before = data.client(client), everyone.client(client)
        kept = len(before.train) if client not in out else 0
        assert len(own.train) == data.sizes[client] == kept
    result = simulate(made)
    trained = set().union(*(record.clients.ids for record in result.records))
    assert trained == set(range(6)) - set(out.tolist()) == set(result.heads())
    assert all(record.spread["digit"]["clients"] == 4 for record in result.records)
    load_command("transfer").main(
        [str(result.path), "--unseen", "--steps", "1,30"], standalone_mode=False
    )
    found = generalise(result.path, [1, 30])
    tests = sum(len(everyone.client(int(client)).test) for client in out)
    for value in found.adapted.values():  # accuracies of so many examples
        assert value * tests == pytest.approx(round(value * tests), abs=1e-6)
    assert found.adapted["fine-tuned", 30, "digit"] > found.adapted["fine-tuned", 1, "digit"]
    assert found.test["digit"] == result.metrics["test"]["digit"]


def test_validation_data_choose_how_fast_new_clients_learn():
    up, down = Task("up", "multiclass", 2), Task("down", "regression", 1, metric="rmse")
    tried = [{("valid", "up"): u, ("valid", "down"): d} for u, d in [(0.7, 2.0), (0.5, 1.0)]]
    tried.append({("valid", "up"): math.nan, ("valid", "down"): math.nan})  # it diverged
    assert _best(up, tried) is tried[0] and _best(down, tried) is tried[1]
    assert _best(up, [{}, {"own": 1}, {}]) == {"own": 1}


def test_gaps_are_above_zero_where_new_data_are_worse():
    up, down = Task("up", "multiclass", 2), Task("down", "regression", 1, metric="rmse")
    found = Unseen(
        (up, down),
        2,
        {"up": 0.9, "down": 1.0},
        {"up": 0.8, "down": 1.5},
        {("head", 5, "up"): 0.5, ("head", 5, "down"): 3.0},
    )
    gaps = [(r["out-of-sample gap"], r["participation gap"]) for r in found.rows()]
    assert gaps == [pytest.approx((0.1, 0.3)), (0.5, 1.5)]


@pytest.mark.parametrize("count", [6, 100])
def test_somebody_has_to_train(tmp_path, count):
    with pytest.raises(UserError, match=f"data.unseen_clients = {count} leaves nobody to train"):
        simulate(config(tmp_path, data={"clients": 6, "unseen_clients": count}))
    assert not list(tmp_path.iterdir())
