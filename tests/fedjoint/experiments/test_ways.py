"""Training alone, per task, and in one place, against plain PyTorch."""

import copy

import numpy as np
import pytest
import torch
from handmade import digits
from plain import pooled_metrics, train

from fedjoint.config.load import check
from fedjoint.data.base import Client, Examples
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Way, run_arm
from fedjoint.experiments.centralised import CENTRALISED, CENTRALISED_PER_TASK, centralised
from fedjoint.experiments.per_task import PER_TASK, by_task
from fedjoint.experiments.subsets import SomeTasks
from fedjoint.experiments.ways import ALONE, JOINT, independent
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate
from fedjoint.training.minibatches import schedule

# Alone


def test_alone_is_every_client_trained_alone(tmp_path):
    # Neither another method's options nor a reference, which is of one seed, are its own.
    other = {"method": "prox", "options": {"mu": 1.0}}
    plain = digits(tmp_path, diagnostics={"reference": "nowhere"})
    config = plain.model_copy(update={"local": plain.local.model_copy(update=other)})
    ((result,),) = (seed.runs for seed in run_arm(ALONE, config, 1).seeds)
    problem = build_problem(config)
    heads, models = result.heads(), []
    layout = problem.model(config).layout()
    for client in range(len(problem.data.sizes)):
        data, model = problem.data.client(client), problem.model(config)
        for round in range(1, config.rounds + 1):
            train(model, config, data, client, round)
        models.append((data, model))
        own = layout.views(heads[client]["own.backbone"])
        for name, tensor in model.state_dict().items():
            if name.startswith("backbone.") or name.split(".")[1] in data.train.y:
                kept = own[name] if name in own else heads[client][name]
                torch.testing.assert_close(kept, tensor, rtol=1e-4, atol=1e-5)
    assert result.metrics["test"] == pytest.approx(pooled_metrics(problem, models), abs=1e-4)


# Per task


def one_label(part, task):
    """Return examples with the labels of one task."""
    return Examples(part.x, {task: part.y[task]})


def fedavg_of(problem, config, task):
    """Average the models of a task's clients; return their test metrics and the backbone."""
    holders = np.flatnonzero(problem.data.tasks[:, problem.data.task_names.index(task.name)])
    parts = {i: problem.data.client(int(i)) for i in holders}
    data = {
        i: Client(*(one_label(part, task.name) for part in (c.train, c.valid, c.test)))
        for i, c in parts.items()
    }
    models = {i: problem.model(config) for i in holders}
    weights = {i: len(c.train) / sum(len(d.train) for d in data.values()) for i, c in data.items()}
    backbone = copy.deepcopy(problem.model(config).backbone.state_dict())
    for round in range(1, config.rounds + 1):
        for i in holders:
            models[i].backbone.load_state_dict(backbone)
            train(models[i], config, data[i], int(i), round)
        each = {i: models[i].backbone.state_dict() for i in holders}
        backbone = {n: sum(weights[i] * each[i][n] for i in holders) for n in backbone}
    for i in holders:
        models[i].backbone.load_state_dict(backbone)
    return pooled_metrics(problem, [(data[i], models[i]) for i in holders]), backbone


def test_per_task_is_fedavg_among_the_clients_of_each_task(tmp_path):
    config = digits(tmp_path, data={"clients": 12}, rounds=2)
    (seed,) = run_arm(PER_TASK, config, 1).seeds
    problem = build_problem(config)
    assert len(seed.runs) == len(problem.tasks) == 5 and seed.clients == 12
    for task, result in zip(problem.tasks, seed.runs, strict=True):
        one = build_problem(config)
        one = type(one)([task], one.backbone, SomeTasks(one.data, [task.name]), one.example)
        expected, backbone = fedavg_of(one, config, task)
        assert result.metrics["test"] == pytest.approx(expected, abs=1e-4)
        for name, tensor in backbone.items():
            found = result.backbone[f"backbone.{name}"]
            torch.testing.assert_close(found, tensor, rtol=1e-4, atol=1e-5)


def test_with_one_task_per_task_is_joint_training(tmp_path):
    config = digits(tmp_path, data={"clients": 5, "task_mix": [["digit"]]}, rounds=2)
    joint, alike = (run_arm(way, config, 1) for way in (JOINT, PER_TASK))
    assert joint.best("digit") == alike.best("digit")
    (one,), (other,) = joint.seeds[0].runs, alike.seeds[0].runs
    assert all(torch.equal(one.backbone[n], other.backbone[n]) for n in one.backbone)


def test_a_task_s_clients_keep_their_ids_examples_and_splits(tmp_path):
    data = build_problem(digits(tmp_path, data={"clients": 12})).data
    only = SomeTasks(data, ["parity"])
    holders = data.tasks[:, data.task_names.index("parity")]
    assert only.task_names == ("parity",) and only.tasks[:, 0].tolist() == holders.tolist()
    assert only.sizes.tolist() == np.where(holders, data.sizes, 0).tolist()
    for client, has in enumerate(holders):
        found, whole = only.client(client), data.client(client)
        for part, all_of_it in zip(
            (found.train, found.valid, found.test),
            (whole.train, whole.valid, whole.test),
            strict=True,
        ):
            assert set(part.y) == ({"parity"} if has else set())
            assert len(part) == (len(all_of_it) if has else 0)
            if has:
                assert torch.equal(part.x, all_of_it.x)
                assert torch.equal(part.y["parity"], all_of_it.y["parity"])


def test_settings_of_all_tasks_are_those_of_one(tmp_path):
    config = digits(
        tmp_path,
        data={"clients": 12, "target_scale": {"ink": "none"}},
        losses={"digit": {"name": "focal"}},
        strategy={"name": "fedavgm", "min_clients": 10, "fraction": 0.5},
        balance={"options": {"weights": {"ink": 0.5, "digit": 2.0}}},
    )
    found = {p.tasks[0].name: made for made, p in by_task(config, build_problem(config))}
    assert list(found) == ["digit", "parity", "loop", "ink", "centroid"]
    weights = {task: made.balance.options["weights"] for task, made in found.items()}
    assert weights["ink"] == {"ink": 0.5} and not weights["loop"]
    scales = {task: made.data.target_scale for task, made in found.items()}
    assert scales["ink"] == {"ink": "none"} and not scales["loop"]
    assert found["digit"].losses.keys() == {"digit"} and not found["loop"].losses
    # Two clients of twelve have ink, four have digit; half of them train in a round.
    assert found["ink"].strategy.min_clients == 1 and found["digit"].strategy.min_clients == 2
    assert found["digit"].strategy.name == "fedavgm" and found["digit"].seed == config.seed
    result = simulate(found["ink"].model_copy(update={"rounds": 1}), by_one(config, "ink"))
    assert result.records[0].clients.asked == 1


def by_one(config, task):
    """Return the problem of one task."""
    return next(p for _, p in by_task(config, build_problem(config)) if p.tasks[0].name == task)


def test_a_task_that_nobody_trains_is_one_line(tmp_path):
    problem = build_problem(digits(tmp_path))
    problem.data.sizes[problem.data.tasks[:, problem.data.task_names.index("ink")]] = 0
    with pytest.raises(UserError, match="task 'ink': no client has a training example"):
        list(by_task(digits(tmp_path), problem))


# In one place


def test_centralised_is_one_model_of_everyone_s_data(tmp_path):
    # Small steps: with large ones, rounding grows into other numbers.
    local = {"epochs": 2, "optimiser": {"lr": 0.01, "momentum": 0.5}, "lr_decay": 0.9}
    config = digits(tmp_path, rounds=2, local=local)
    made, problem = centralised(config, build_problem(config))
    data = problem.data.client(0)
    # Two epochs of the clients: as many examples, in batches as large.
    assert made.local.steps == round(2 * len(data.train) / 16)
    assert made.local.optimiser == config.local.optimiser
    model = problem.model(made)
    for number in (1, 2):
        train(model, made, data, 0, number, steps=made.local.steps)
    found = run_arm(CENTRALISED, config, 1)
    assert found.seeds[0].clients == 1
    assert found.seeds[0].runs[0].metrics["test"] == pytest.approx(
        pooled_metrics(problem, [(data, model)]), abs=1e-3
    )


def test_centralised_per_task_is_centralised_training_of_the_task_alone(tmp_path):
    config = digits(tmp_path, data={"clients": 12}, rounds=1)
    found = run_arm(CENTRALISED_PER_TASK, config, 1)
    for task, result in zip(found.tasks, found.seeds[0].runs, strict=True):
        made, problem = centralised(config, by_one(config, task.name))
        data = problem.data.client(0)
        # Examples without the task's label are not among them.
        labels = data.train.y[task.name]
        known = ~labels.isnan().any(-1) if labels.is_floating_point() else labels >= 0
        assert known.all() and made.local.steps == round(2 * len(labels) / 16)
        model = problem.model(made)
        train(model, made, data, 0, 1, steps=made.local.steps)
        expected = pooled_metrics(problem, [(data, model)])
        assert result.metrics["test"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("local", "fraction"),
    [({"epochs": 3}, 1.0), ({"epochs": 1}, 0.5), ({"steps": 4}, 1.0), ({"steps": 9}, 0.3)],
)
def test_centralised_sees_as_many_examples_as_the_clients(tmp_path, local, fraction):
    config = digits(
        tmp_path, data={"clients": 30}, local=local, strategy={"fraction": fraction}, rounds=1
    )
    problem, seen = build_problem(config), 0
    for client, size in enumerate(problem.data.sizes):
        drawn = schedule(0, 1, np.array([client]), np.array([size]), batch_size=16, **local)
        seen += int(drawn.mask.sum())
    made, _ = centralised(config, problem)
    assert 16 * (made.local.steps or 0) == pytest.approx(fraction * seen, abs=8.5)


def test_centralised_pays_for_nothing_that_only_clients_need(tmp_path):
    config = digits(
        tmp_path,
        rounds=1,
        strategy={"name": "krum", "compression": {"name": "topk"}, "min_clients": 5},
        local={"epochs": 1, "lr_scales": [0.01, 1.0]},
    )
    bare = digits(tmp_path, rounds=1, local={"epochs": 1})
    pooled, plain = (run_arm(CENTRALISED, made, 1) for made in (config, bare))
    assert pooled.seeds[0].runs[0].metrics == plain.seeds[0].runs[0].metrics


# Seeds


def test_seeds_go_up_from_the_configuration_s_own(tmp_path):
    asked, config = [], digits(tmp_path, rounds=1, seed=5)
    found = run_arm(JOINT, config, 2, on_run=lambda name, seed: asked.append((name, seed)))
    assert asked == [("joint", 5), ("joint", 6)]
    assert [seed.runs[0].config.seed for seed in found.seeds] == [5, 6]
    assert found.rate == 0.05 and found.best("digit")[0] != found.best("digit")[1]
    assert "digits" not in config.name and found.seeds[0].runs[0].path.name.startswith("run-joint")


def test_a_way_may_be_another_s_with_other_settings(tmp_path):
    config = digits(tmp_path, rounds=1)
    way = Way("also alone", lambda made: [(independent(made), build_problem(made))])
    assert run_arm(way, config, 1).best("digit") == run_arm(ALONE, config, 1).best("digit")
    assert check({}).local.method is None
