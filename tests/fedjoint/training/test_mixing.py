"""Models whose examples depend on their batch: padding and batches of one, against plain loops."""

import logging
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedjoint import Client, Examples, Problem, Task
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.simulation import simulate
from fedjoint.training.method import LocalMethod
from fedjoint.training.minibatches import schedule
from fedjoint.training.trainer import Trainer

CPU = torch.device("cpu")
PATHS = pytest.mark.parametrize("path", ["batched", "sequential"])


class Centre(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Trained(Centre):
    """Mixes in training alone."""

    def forward(self, x):
        return super().forward(x) if self.training else x


class Evaluated(Centre):
    """Mixes in evaluation alone."""

    def forward(self, x):
        return x if self.training else super().forward(x)


LAYERS = {
    "statistics": lambda: nn.BatchNorm1d(6),
    "no statistics": lambda: nn.BatchNorm1d(6, track_running_stats=False),
    "mean": Centre,
    "mean in training": Trained,
    "mean in evaluation": Evaluated,
}


def backbone(layer):
    return lambda: nn.Sequential(nn.Linear(5, 6), LAYERS[layer](), nn.Tanh())


class Sized:
    """Clients of one regression task, with so many examples in training, validation and test."""

    task_names = ("sum",)

    def __init__(self, *sizes):
        self.parts = sizes
        self.sizes = np.array([train for train, _, _ in sizes])
        self.tasks = np.ones((len(sizes), 1), bool)

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        x = torch.randn(sum(self.parts[index]), 5, generator=g)
        examples = Examples(x, {"sum": x.sum(1, keepdim=True)})
        return Client(*map(examples.take, torch.arange(len(x)).split(self.parts[index])))


def problem(layer, *sizes):
    tasks = [Task("sum", "regression", 1, scale="none")]
    return Problem(tasks, backbone(layer), Sized(*sizes), torch.ones(1, 5))


def settings(local=(), evaluate=(), **more):
    return check(
        {
            "local": {"batch_size": 16, "optimiser": {"lr": 0.1}, **dict(local)},
            "evaluate": dict(evaluate),
            "engine": {"name": "inline"},
            **more,
        }
    )


def trained(config, problem):
    """Train every client for a round; return them as models, with steps and jobs."""
    trainer = Trainer(problem, config, CPU)
    received = trainer.layout.flat(trainer.model.state_dict())
    found = []
    for at in trainer.chunks(np.arange(len(problem.data.sizes))):
        ids = np.arange(len(problem.data.sizes))[at]
        cohort = trainer.cohort(ids, ids)
        fresh = trainer.fresh(cohort.tasks, LocalMethod(), received)
        private = {n: torch.stack([t] * len(ids)) for n, t in fresh.items()}
        job = trainer.job(cohort, 1, received, {}, received.repeat(len(ids), 1), private)
        job.descend()
        for row in range(len(ids)):
            model = problem.model(config)
            state = {n: t[row] for n, t in {**trainer.layout.views(job.shared), **private}.items()}
            model.load_state_dict(state)
            found.append((model, job, row))
    return trainer, found


def plain(config, problem, client, least):
    """Train one client with torch.optim, without minibatches of fewer than ``least``."""
    model, data = problem.model(config), problem.data.client(client).train
    local = config.local
    drawn = schedule(
        config.seed,
        1,
        np.array([client]),
        np.array([len(data)]),
        batch_size=local.batch_size,
        epochs=local.epochs,
        steps=local.steps,
    )
    optimiser, steps = torch.optim.SGD(model.parameters(), lr=local.optimiser.lr), 0
    for index, mask in zip(drawn.index[:, 0], drawn.mask[:, 0], strict=True):
        if mask.sum() < least:
            continue
        at = torch.from_numpy(index[mask])
        loss = F.mse_loss(model(data.x[at])["sum"], data.y["sum"][at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    return model, steps


RAGGED = ((20, 9, 3), (41, 4, 12), (16, 6, 5))


@PATHS
@pytest.mark.parametrize("budget", [{"epochs": 2}, {"steps": 5}], ids=["epochs", "steps"])
@pytest.mark.parametrize("layer", LAYERS)
def test_clients_of_different_size_train_as_in_a_plain_loop(layer, budget, path):
    config = settings(local={**budget, "path": path})
    made = problem(layer, *RAGGED)
    _, found = trained(config, made)
    for client, (model, job, row) in enumerate(found):
        expected, steps = plain(config, made, client, least=1)
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
        assert job.steps[row] == steps


def error(model, examples, parts):
    """Return the sum of squared errors of predictions that are made in ``parts``."""
    model.eval()
    with torch.no_grad():
        y = torch.cat([model(x)["sum"] for x in examples.x.split(parts)])
    return float(((y - examples.y["sum"]) ** 2).sum())


@PATHS
@pytest.mark.parametrize("layer", LAYERS)
def test_clients_of_different_size_are_evaluated_as_in_a_plain_loop(layer, path):
    config = settings(local={"epochs": 1, "path": path}, evaluate={"batch_size": 16})
    made = problem(layer, (40, 33, 0), (22, 7, 16))
    trainer, found = trained(config, made)
    expected = {f"{split}/sum": np.zeros(2) for split in ("train", "valid", "test")}
    # Of 33 examples the last alone would have no statistics: it joins the 16 before.
    parts = [{"train": [16, 16, 8], "valid": [16, 17]}, {"train": 16, "valid": 16, "test": 16}]
    if trainer.traits.evaluate == 1:
        parts[0]["valid"] = [16, 16, 1]
    sums = {name: np.zeros(2) for name in expected}
    for client, (model, job, row) in enumerate(found):
        for split, sizes in parts[client].items():
            examples = getattr(made.data.client(client), split)
            expected[f"{split}/sum"] += len(examples), error(model, examples, sizes)
        if row == 0:
            for name, values in trainer.evaluate(job.cohort, job.shared, job.private)[0].items():
                sums[name] += values.sum(0)[[0, 2]].numpy()
    for name in expected:
        np.testing.assert_allclose(sums[name], expected[name], rtol=1e-4)


@PATHS
@pytest.mark.parametrize("layer", LAYERS)
def test_the_loss_of_a_backbone_is_that_of_a_plain_loop(layer, path):
    config = settings(local={"epochs": 1, "path": path}, evaluate={"batch_size": 16})
    made = problem(layer, (33, 3, 3), (20, 3, 3))
    trainer, found = trained(config, made)
    last = [16, 17] if trainer.traits.evaluate == 2 else [16, 16, 1]
    for client, (model, job, row) in enumerate(found):
        data = made.data.client(client).train
        expected = error(model, data, [16, 4] if client else last) / len(data)
        assert float(job.loss(job.shared)[row]) == pytest.approx(expected, rel=1e-4)


@PATHS
@pytest.mark.parametrize("layer", ["statistics", "no statistics"])
def test_a_last_minibatch_of_one_is_left_out_where_the_model_takes_none(layer, path, tmp_path):
    made = problem(layer, (33, 4, 4), (32, 4, 4), (17, 4, 4))
    config = settings(local={"epochs": 2, "path": path}, rounds=2, output={"dir": str(tmp_path)})
    trainer, found = trained(config, made)
    assert trainer.fallback.endswith("; an epoch's last minibatch of one example is left out")
    for client, (model, job, row) in enumerate(found):
        expected, steps = plain(config, made, client, least=2)
        assert job.steps[row] == steps == (4, 4, 2)[client]
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    records = simulate(config, made).records
    assert [record.clients.failed for record in records] == [(), ()]
    assert records[0].fallback == trainer.fallback


def test_a_last_minibatch_of_one_counts_where_the_model_takes_it():
    for layer in ("mean", "mean in evaluation"):
        config = settings(local={"epochs": 1})
        made = problem(layer, (33, 4, 4), (20, 4, 4))
        trainer, found = trained(config, made)
        assert "left out" not in trainer.fallback
        assert [int(job.steps[row]) for _, job, row in found] == [3, 2]


def test_with_steps_nothing_is_left_out():
    config = settings(local={"steps": 5, "batch_size": 16})
    trainer, found = trained(config, problem("statistics", (33, 4, 4)))
    assert "left out" not in trainer.fallback and found[0][1].steps.tolist() == [5]


@pytest.mark.parametrize("budget", [{"epochs": 1}, {"steps": 3}], ids=["epochs", "steps"])
def test_a_client_with_one_example_is_named(budget, tmp_path):
    made = problem("statistics", (1, 4, 4), (20, 4, 4))
    result = simulate(settings(local=budget, rounds=1, output={"dir": str(tmp_path)}), made)
    (failed,) = result.records[0].clients.failed
    assert failed.client == 0
    assert "1 training example" in failed.reason and "\n" not in failed.reason


def test_one_example_to_evaluate_is_named(tmp_path):
    made = problem("no statistics", (20, 1, 4), (20, 4, 4))
    config = settings(local={"epochs": 1}, rounds=1, output={"dir": str(tmp_path)})
    (failed,) = simulate(config, made).records[0].clients.unevaluated
    assert failed.client == 0
    assert "no fewer than 2" in failed.reason and "\n" not in failed.reason


@pytest.mark.parametrize(
    ("layer", "table", "words"),
    [
        ("statistics", "local", "local.batch_size is 1"),
        ("no statistics", "local", "local.batch_size is 1"),
        ("no statistics", "evaluate", "evaluate.batch_size is 1"),
    ],
)
def test_batches_of_one_are_refused_before_the_first_round(layer, table, words, tmp_path, caplog):
    tree = {"local": {"epochs": 1}, "evaluate": {}}
    tree[table] = {**tree[table], "batch_size": 1}
    config = settings(**tree, output={"dir": str(tmp_path)})
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match=re.escape(words)) as found:
        simulate(config, problem(layer, (20, 4, 4)))
    assert "\n" not in str(found.value) and "raise it" in str(found.value)
    assert "Traceback" not in caplog.text


def test_statistics_that_are_kept_are_evaluated_one_by_one(tmp_path):
    config = settings(
        local={"epochs": 1}, evaluate={"batch_size": 1}, rounds=1, output={"dir": str(tmp_path)}
    )
    result = simulate(config, problem("statistics", (20, 1, 4)))
    assert result.records[0].clients.unevaluated == ()


@PATHS
@pytest.mark.parametrize("layer", ["statistics", "no statistics", "mean"])
def test_a_client_without_training_data_is_evaluated_with_a_head_that_learnt_nothing(
    layer, path, tmp_path
):
    config = settings(
        local={"epochs": 1, "path": path},
        strategy={"name": "fedbabu"},
        rounds=1,
        output={"dir": str(tmp_path)},
    )
    result = simulate(config, problem(layer, (0, 4, 4), (20, 4, 4)))
    assert result.records[0].clients.unevaluated == ()
