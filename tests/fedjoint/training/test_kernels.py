"""Batched and sequential training against a plain PyTorch loop, client by client."""

import copy
import shutil

import numpy as np
import pytest
import torch

from fedjoint.config.load import check
from fedjoint.problem import build_problem
from fedjoint.training.method import LocalMethod
from fedjoint.training.minibatches import schedule
from fedjoint.training.trainer import Trainer

OPTIMISERS = {
    "sgd": (
        {"name": "sgd", "lr": 0.1, "weight_decay": 0.01},
        torch.optim.SGD,
        {"weight_decay": 0.01},
    ),
    "momentum": ({"name": "sgd", "lr": 0.05, "momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    "adam": (
        {"name": "adam", "lr": 0.01, "weight_decay": 0.1},
        torch.optim.Adam,
        {"weight_decay": 0.1},
    ),
    "adamw": (
        {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
        torch.optim.AdamW,
        {"weight_decay": 0.1},
    ),
}


def make(local, tasks=("digit", "ink"), **tables):
    return check(
        {
            "seed": 3,
            "data": {
                "clients": 4,
                "partition": "quantity",
                "examples_per_client": 70,
                "alpha": 1.0,
                "task_mix": [list(tasks)],
            },
            "model": {"backbone": {"options": {"hidden": [12, 8]}}},
            "local": {"batch_size": 10, **local},
            **tables,
        }
    )


def train(config):
    """Train every client for round 2; return backbones, private state and the trainer."""
    trainer = Trainer(build_problem(config), config, torch.device("cpu"))
    received = trainer.layout.flat(trainer.model.state_dict())
    clients = np.arange(4)
    backbones, states, losses = [], [], []
    for part in trainer.chunks(clients):
        ids = clients[part]
        cohort = trainer.cohort(ids, ids)
        fresh = trainer.fresh(cohort.tasks, LocalMethod(), received)
        private = {n: torch.stack([t] * len(ids)) for n, t in fresh.items()}
        shared = received.expand(len(ids), -1).clone()
        job = trainer.job(cohort, 2, received, {}, shared, private)
        LocalMethod().train(job)
        backbones.append(job.shared)
        states.append(private)
        losses.append(job.losses)
    state = {n: torch.cat([s[n] for s in states]) for n in states[0]}
    return torch.cat(backbones), state, torch.cat(losses), trainer


def plain_loop(config, make_optimiser, client):
    """Train one client with torch.optim and its own model, on the same minibatches."""
    problem = build_problem(config)
    model = problem.model(config)
    data = problem.data.client(client).train
    drawn = schedule(
        config.seed,
        2,
        np.array([client]),
        np.array([len(data)]),
        batch_size=config.local.batch_size,
        epochs=config.local.epochs,
        steps=config.local.steps,
    )
    optimiser = make_optimiser(model.parameters())
    for index, mask in zip(drawn.index[:, 0], drawn.mask[:, 0], strict=True):
        at = torch.from_numpy(index[mask])
        if not len(at):
            continue
        output = model(data.x[at])
        loss = torch.nn.functional.cross_entropy(output["digit"], data.y["digit"][at])
        loss = loss + torch.nn.functional.mse_loss(output["ink"], data.y["ink"][at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("budget", [{"epochs": 2}, {"steps": 7}], ids=["epochs", "steps"])
@pytest.mark.parametrize("path", ["batched", "sequential"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_training_equals_a_plain_loop(name, path, budget):
    settings, kind, options = OPTIMISERS[name]
    config = make({"optimiser": settings, "path": path, **budget})
    backbones, state, _, trainer = train(config)
    assert len(set(trainer.problem.data.sizes.tolist())) > 1, "the sizes should be ragged"
    for client in range(4):
        model = plain_loop(config, lambda p: kind(p, lr=settings["lr"], **options), client)
        expected = model.state_dict()
        ours = trainer.layout.views(backbones[client])
        for tensor_name, tensor in ours.items():
            torch.testing.assert_close(tensor, expected[tensor_name], rtol=1e-3, atol=5e-5)
        for tensor_name in state:
            torch.testing.assert_close(
                state[tensor_name][client], expected[tensor_name], rtol=1e-3, atol=5e-5
            )


def test_a_clients_rate_scales_its_steps():
    config = make({"epochs": 1, "optimiser": {"lr": 0.1}, "lr_scales": [1.0, 0.5]})
    backbones, _, _, trainer = train(config)
    for client, rate in [(0, 0.1), (1, 0.05), (2, 0.1), (3, 0.05)]:
        model = plain_loop(config, lambda p, r=rate: torch.optim.SGD(p, lr=r), client)
        expected = trainer.layout.flat(model.state_dict())
        torch.testing.assert_close(backbones[client], expected, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("rule", ["fixed", "uncertainty", "gradnorm", "dwa"])
def test_both_paths_agree_whatever_balances_the_tasks(rule):
    both = [
        train(make({"epochs": 2, "optimiser": {"lr": 0.05}, "path": path}, balance={"name": rule}))
        for path in ("batched", "sequential")
    ]
    torch.testing.assert_close(both[0][0], both[1][0], rtol=1e-3, atol=5e-5)
    torch.testing.assert_close(both[0][2], both[1][2], rtol=1e-3, atol=5e-5)
    for name in both[0][1]:
        torch.testing.assert_close(
            both[0][1][name], both[1][1][name], rtol=1e-3, atol=5e-5, equal_nan=True
        )


def test_uncertainty_equals_a_plain_loop_with_trained_log_variances():
    config = make({"steps": 5, "optimiser": {"lr": 0.1}}, balance={"name": "uncertainty"})
    _, state, _, trainer = train(config)
    data = trainer.problem.data.client(1).train
    model, s = trainer.problem.model(config), torch.zeros(2, requires_grad=True)
    drawn = schedule(3, 2, np.array([1]), np.array([len(data)]), batch_size=10, steps=5)
    optimiser = torch.optim.SGD([*model.parameters(), s], lr=0.1)
    for index, mask in zip(drawn.index[:, 0], drawn.mask[:, 0], strict=True):
        at = torch.from_numpy(index[mask])
        output = model(data.x[at])
        digit = torch.nn.functional.cross_entropy(output["digit"], data.y["digit"][at])
        ink = torch.nn.functional.mse_loss(output["ink"], data.y["ink"][at])
        loss = torch.exp(-s[0]) * digit + 0.5 * torch.exp(-s[1]) * ink + s.sum() / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(state["balance.log_variance"][1], s.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", ["fixed", "uncertainty", "gradnorm", "dwa"])
@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_a_backbone_is_judged_by_what_training_minimises(rule, path):
    config = make({"steps": 2, "path": path}, balance={"name": rule})
    trainer = Trainer(build_problem(config), config, torch.device("cpu"))
    received = trainer.layout.flat(trainer.model.state_dict())
    for part in trainer.chunks(np.arange(4)):
        ids = np.arange(4)[part]
        cohort = trainer.cohort(ids, ids)
        fresh = trainer.fresh(cohort.tasks, LocalMethod(), received)
        private = {n: torch.stack([t] * len(ids)) for n, t in fresh.items()}
        s, w = torch.tensor([0.7, -1.2]), torch.tensor([0.5, 1.5])
        weights = torch.ones(2)
        if rule == "uncertainty":
            private["balance.log_variance"][:] = s
            weights = torch.tensor([1, 0.5]) * torch.exp(-s)
        if rule == "gradnorm":
            private["balance.weights"][:] = weights = w
        shared = received.repeat(len(ids), 1)
        job = trainer.job(cohort, 1, received, {}, shared, private)
        for row, client in enumerate(ids):
            data = trainer.problem.data.client(client).train
            with torch.no_grad():
                output = trainer.problem.model(config)(data.x)
            digit = torch.nn.functional.cross_entropy(output["digit"], data.y["digit"])
            ink = torch.nn.functional.mse_loss(output["ink"], data.y["ink"])
            expected = weights @ torch.stack([digit, ink])
            expected += s.sum() / 2 if rule == "uncertainty" else 0
            torch.testing.assert_close(job.loss(shared)[row], expected, rtol=1e-4, atol=1e-5)


def test_batchnorm_falls_back_with_a_reason_and_keeps_its_statistics():
    config = check(
        {
            "data": {"clients": 3, "task_mix": [["digit"]]},
            "model": {
                "backbone": {
                    "name": "cnn",
                    "options": {"hidden": [4], "batch_norm": True},
                }
            },
            "local": {"epochs": 1, "optimiser": {"lr": 0.05}},
        }
    )
    trainer = Trainer(build_problem(config), config, torch.device("cpu"))
    assert "running statistics" in trainer.fallback
    assert "\n" not in trainer.fallback
    received = trainer.layout.flat(trainer.model.state_dict())
    ids = np.array([1])
    cohort = trainer.cohort(ids, ids)
    private = {
        n: t[None].clone() for n, t in trainer.fresh(cohort.tasks, LocalMethod(), received).items()
    }
    job = trainer.job(cohort, 1, received, {}, received[None].clone(), private)
    LocalMethod().train(job)
    model = copy.deepcopy(trainer.problem.model(config))
    data = trainer.problem.data.client(1).train
    drawn = schedule(0, 1, ids, np.array([len(data)]), batch_size=16, epochs=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for index, mask in zip(drawn.index[:, 0], drawn.mask[:, 0], strict=True):
        at = torch.from_numpy(index[mask])
        loss = torch.nn.functional.cross_entropy(model(data.x[at])["digit"], data.y["digit"][at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    expected = model.state_dict()
    for name, tensor in trainer.layout.views(job.shared[0]).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)


def test_local_norm_is_not_shared():
    config = check(
        {
            "model": {
                "backbone": {
                    "name": "cnn",
                    "options": {"hidden": [4], "batch_norm": True},
                },
                "norm": "local",
            }
        }
    )
    model = build_problem(config).model(config)
    assert not any("2." in name for name in model.layout().shapes)
    assert any("running_mean" in name for name in model.private(["digit"]))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_equals_batched():
    stops = torch._dynamo.utils.counters["graph_break"]
    stops.clear()
    plain, compiled = (train(make({"steps": 3, "compile": c})) for c in (False, True))
    assert not stops  # a program that is compiled in pieces is slower than one that is not
    torch.testing.assert_close(compiled[0], plain[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(compiled[2], plain[2], rtol=1e-4, atol=1e-6)


def test_mixed_precision_is_near_and_not_the_same():
    full, mixed = (train(make({"steps": 3, "precision": p})) for p in ("float32", "bfloat16"))
    moved = (full[0] - full[3].layout.flat(full[3].model.state_dict())).norm()
    apart = (mixed[0] - full[0]).norm()
    assert 0 < apart < 0.1 * moved
