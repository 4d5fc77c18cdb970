"""Unify's merge, coordinate by coordinate."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedjoint.strategies.unify import Unify


def by_hand(vectors, weights, threshold):
    """The rule of the docstring in plain loops."""
    tasks, size = vectors.shape
    mixed = np.zeros_like(vectors)
    for t in range(tasks):
        shares = [1.0 if s == t else 0.0 for s in range(tasks)]
        for s in range(tasks):
            signs = np.sign(vectors[t] * vectors[s])
            alike = ((signs > 0).sum() - (signs < 0).sum()) / size
            if s != t and alike > threshold:
                shares[s] = alike
        mixed[t] = np.average(vectors, axis=0, weights=shares)
    unified = np.zeros(size)
    for p in range(size):
        sign = np.sign(mixed[:, p].sum())
        unified[p] = sign * max([abs(u) for u in mixed[:, p] if u * sign > 0], default=0)
    factors = [np.abs(u).sum() / np.abs(unified[u * unified > 0]).sum() for u in mixed]
    return weights @ factors * unified


@pytest.mark.parametrize("threshold", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_unify_is_its_rule(draw, threshold, seed):
    updates = draw(6, common=0.5, seed=seed)
    tasks = updates.by_task()
    expected = by_hand(tasks.matrix.double().numpy(), tasks.weights.double().numpy(), threshold)
    np.testing.assert_allclose(Unify(threshold).merge(updates), expected, atol=1e-5)


def test_unify_of_one_task_is_the_mean(draw):
    updates = draw(4)
    updates = replace(updates, tasks=torch.tensor([[True, False, False]] * 4))
    torch.testing.assert_close(Unify().merge(updates), updates.mean())


def test_tasks_that_cancel_out_elect_no_sign(wrap):
    # Nothing is mixed at this threshold, and the three sum to zero, but for rounding.
    random = torch.Generator().manual_seed(0)
    v = torch.randn(400, generator=random)
    matrix = torch.stack([v, 0.1 * v, -1.1 * v])
    updates = replace(
        wrap(matrix),
        tasks=torch.eye(3, dtype=torch.bool),
        weights=torch.full((3,), 1 / 3),
    )
    assert not Unify(threshold=1.0).merge(updates).any()
