"""FedAMP against the paper's formula, and at its two ends: everyone alone, and plain averaging."""

import math
from dataclasses import replace

import pytest
import torch
from support import small

from fedjoint.server.strategy import checked_merge
from fedjoint.simulation import simulate
from fedjoint.strategies.fedamp import FedAMP


def cloud(models, alpha, sigma):
    """The paper's update of every u_i, with loops and A(x) = 1 - exp(-x / s)."""
    n = len(models)
    square = [[float((w - v).square().sum()) for v in models] for w in models]
    s = sigma * sum(map(sum, square)) / (n * (n - 1))
    step = alpha * s / (n - 1)
    found = []
    for i in range(n):
        u = (1 - step * sum(math.exp(-square[i][j] / s) / s for j in range(n) if j != i)) * models[
            i
        ]
        for j in range(n):
            if j != i:
                u = u + step * math.exp(-square[i][j] / s) / s * models[j]
        found.append(u)
    return torch.stack(found)


def merged(strategy, updates, backbones, received):
    updates = replace(updates, backbones=backbones, received=torch.tensor(received))
    of, steps = checked_merge(strategy, updates)
    return backbones[of] + steps


def test_cloud_models_are_the_paper_s(draw):
    strategy, first = FedAMP(alpha=0.6, sigma=0.8), draw(5)  # client ids are 0, 3, .. 12
    models = first.backbone + first.matrix
    after = merged(strategy, first, first.backbone[None], [0] * 5)
    torch.testing.assert_close(after[1:], cloud(models, 0.6, 0.8), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[0], first.weights @ models)
    received = strategy.receives(2, torch.tensor([0, 3, 12, 4, 99]), torch.ones(5, 1))
    assert received.tolist() == [1, 2, 5, 0, 0]


def test_the_absent_keep_their_model_and_the_new_come_later(draw):
    strategy, first, second = FedAMP(alpha=0.6), draw(4), draw(3, seed=2, round=2)
    after = merged(strategy, first, first.backbone[None], [0] * 4)
    second = replace(second, clients=torch.tensor([3, 9, 40]))
    last = merged(strategy, second, after, [2, 4, 0])
    models = after[[2, 4, 0]] + second.matrix
    torch.testing.assert_close(last[[2, 4, 5]], cloud(models, 0.6, 1.0), rtol=1e-4, atol=1e-5)
    assert torch.equal(last[[1, 3]], after[[1, 3]]) and len(last) == 6


def test_models_that_are_alike_are_what_they_are(wrap):
    same = wrap(torch.ones(4, 6))
    after = merged(FedAMP(), same, same.backbone[None], [0] * 4)
    torch.testing.assert_close(after, (same.backbone + 1).expand(5, -1))


def test_one_client_is_its_own(draw):
    one = draw(1)
    after = merged(FedAMP(alpha=1.0), one, one.backbone[None], [0])
    torch.testing.assert_close(after[1], one.backbone + one.matrix[0])


def test_without_attention_and_pull_everyone_trains_alone(tmp_path):
    options = {"alpha": 0.0, "lam": 0.0}
    amp = simulate(small.config(tmp_path, strategy={"name": "fedamp", "options": options}))
    local = {**small.config(tmp_path).model_dump()["local"], "method": "independent"}
    alone = simulate(small.config(tmp_path, local=local))
    assert amp.metrics["test"] == pytest.approx(alone.metrics["test"], abs=1e-6)


def test_attention_that_knows_no_distance_is_the_mean(draw):
    updates = draw(5)
    after = merged(FedAMP(alpha=0.8, sigma=1e9), updates, updates.backbone[None], [0] * 5)
    mean = updates.backbone + updates.matrix.mean(0)
    torch.testing.assert_close(after[1:], mean.expand(5, -1), rtol=1e-4, atol=1e-5)
