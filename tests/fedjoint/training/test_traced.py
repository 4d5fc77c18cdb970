"""A client's traced steps are those of a plain PyTorch loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint.config.load import check
from fedjoint.problem import build_problem
from fedjoint.training.alone import Alone
from fedjoint.training.method import LocalMethod
from fedjoint.training.traced import Traced
from fedjoint.training.trainer import Trainer

RULES = {
    "plain": {"lr": 0.03},
    "decay": {"lr": 0.03, "weight_decay": 0.1},
    "momentum": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x.reshape(len(x), 8, 8)).mean(1)


MODELS = {
    "linear": lambda: nn.Sequential(nn.Linear(64, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 7)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten()
    ),
    # Pooling to one number changes strides in place where the channels are last.
    "pooled": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "attention": Attention,
    "normalised": lambda: nn.Sequential(nn.Linear(64, 5), nn.BatchNorm1d(5)),
}


def train(path, model, **local):
    """Train clients of several sizes, one after the other; return their jobs."""
    config = check(
        {
            "data": {
                "clients": 4,
                "partition": "quantity",
                "examples_per_client": 50,
                "alpha": 0.4,
                "task_mix": [["digit", "ink"]],
            },
            "local": {"path": path, "batch_size": 8, "epochs": 2, **local},
        }
    )
    problem = replace(build_problem(config), backbone=MODELS[model])
    trainer = Trainer(problem, config, torch.device("cpu"))
    received = trainer.layout.flat(trainer.model.state_dict())
    for client in range(4):
        ids = np.array([client])
        cohort = trainer.cohort(ids, ids)
        fresh = trainer.fresh(cohort.tasks, LocalMethod(), received)
        private = {n: t[None].clone() for n, t in fresh.items()}
        job = trainer.job(cohort, 1, received, {}, received[None].clone(), private)
        LocalMethod().train(job)
        yield job


@pytest.mark.parametrize("path", ["traced", "channels_last"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", ["linear", "convolution", "pooled", "attention"])
def test_it_equals_a_plain_loop(model, rule, path):
    traced = list(train(path, model, optimiser=RULES[rule]))
    plain = list(train("sequential", model, optimiser=RULES[rule]))
    assert len({int(job.steps[0]) for job in plain}) > 1, "clients should take different steps"
    for ours, theirs in zip(traced, plain, strict=True):
        assert isinstance(ours.descent, Traced)
        untraced = path == "channels_last" and model == "pooled"
        assert (None in ours.descent._traced.values()) is untraced
        assert isinstance(theirs.descent, Alone)
        assert ours.steps.tolist() == theirs.steps.tolist() == ours.work.tolist()
        torch.testing.assert_close(ours.shared, theirs.shared, rtol=1e-3, atol=3e-5)
        torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-3, atol=3e-5)
        for name, tensor in ours.private.items():
            torch.testing.assert_close(tensor, theirs.private[name], rtol=1e-3, atol=3e-5)


def test_a_model_that_mixes_examples_takes_a_plain_loop():
    for ours, theirs in zip(
        train("traced", "normalised"), train("sequential", "normalised"), strict=True
    ):
        assert isinstance(ours.descent, Alone)
        assert torch.equal(ours.shared, theirs.shared)


def test_what_cannot_be_traced_takes_steps_all_the_same(monkeypatch):
    def fail(*_, **__):
        raise NotImplementedError("no such thing")

    monkeypatch.setattr("fedjoint.training.traced.notes_of_one", fail)
    for path in ("traced", "channels_last"):
        for ours, theirs in zip(train(path, "linear"), train("sequential", "linear"), strict=True):
            torch.testing.assert_close(ours.shared, theirs.shared, rtol=1e-3, atol=3e-5)
