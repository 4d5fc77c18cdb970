"""The adaptive server optimisers against Algorithm 2 of their paper, number by number."""

import math

import pytest
import torch

from fedjoint.strategies.fedadagrad import FedAdagrad
from fedjoint.strategies.fedadam import FedAdam
from fedjoint.strategies.fedyogi import FedYogi

TAU = 0.05


def by_hand(rule, deltas, lr, beta1, beta2):
    """Return the parameter after each of ``deltas``, which is what the server sees of it."""
    x, m, v, found = 0.0, 0.0, TAU**2, []
    for delta in deltas:
        m = beta1 * m + (1 - beta1) * delta
        if rule is FedAdagrad:
            v = v + delta**2
        elif rule is FedYogi:
            v = v - (1 - beta2) * delta**2 * math.copysign(1, v - delta**2)
        else:
            v = beta2 * v + (1 - beta2) * delta**2
        x = x + lr * m / (math.sqrt(v) + TAU)
        found.append(x)
    return found


@pytest.mark.parametrize(
    ("rule", "options", "lr", "beta1", "beta2"),
    [
        (FedAdagrad, {"server_lr": 0.2}, 0.2, 0.0, 0.0),
        (FedAdam, {"server_lr": 0.3, "beta1": 0.5, "beta2": 0.7}, 0.3, 0.5, 0.7),
        (FedAdam, {}, 0.1, 0.9, 0.99),
        (FedYogi, {"server_lr": 0.3, "beta1": 0.5, "beta2": 0.7}, 0.3, 0.5, 0.7),
        (FedYogi, {}, 0.01, 0.9, 0.99),
    ],
)
def test_algorithm_two(rule, options, lr, beta1, beta2, draw):
    strategy, backbone = rule(**options, tau=TAU), torch.zeros(30)
    rounds = [draw(5, seed=seed, round=seed) for seed in range(1, 9)]
    rounds[3].matrix.mul_(1e-3)  # v falls, too
    means = torch.stack([updates.mean() for updates in rounds]).tolist()
    expected = [by_hand(rule, deltas, lr, beta1, beta2) for deltas in zip(*means, strict=True)]
    for updates, values in zip(rounds, zip(*expected, strict=True), strict=True):
        backbone = backbone + strategy.merge(updates)
        torch.testing.assert_close(backbone, torch.tensor(values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [FedAdagrad, FedAdam, FedYogi])
def test_v_starts_at_tau_squared(rule, draw):
    updates = draw(5)
    updates.matrix.mul_(1e-6)  # and stays there
    strategy = rule(server_lr=1.0, tau=TAU)
    expected = (1 - strategy.beta1) * updates.mean() / (2 * TAU)
    torch.testing.assert_close(strategy.merge(updates), expected, rtol=2e-2, atol=0)
