"""Diagnostics of a round against numpy, on known numbers and at the edges."""

import json

import numpy as np
import pytest
import torch

from fedjoint.model.layout import Layout
from fedjoint.server.agreement import agreement_within, diagnose
from fedjoint.server.updates import Updates


def updates_of(matrix, tasks=None):
    """Updates of equal weight; by default every client trains the first of two tasks."""
    matrix = torch.as_tensor(matrix, dtype=torch.float32)
    rows, size = matrix.shape
    tasks = torch.tensor([[True, False]] * rows if tasks is None else tasks, dtype=torch.bool)
    ones = torch.ones(rows, dtype=torch.int64)
    return Updates(
        matrix=matrix,
        weights=torch.full((rows,), 1 / max(1, rows)),
        examples=ones,
        clients=10 + torch.arange(rows),
        tasks=tasks.reshape(rows, 2),
        task_names=("a", "b"),
        steps=ones,
        backbone=torch.zeros(size),
        layout=Layout({"w": (size,)}),
        round=1,
    )


def everyone(updates):
    """Return the ids and the Gram matrix of all rows."""
    return updates.clients, updates.gram


def test_known_numbers():
    updates = updates_of([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]], [[1, 0], [1, 0], [0, 1]])
    said = diagnose(updates, torch.tensor([0.0, 4.0]), *everyone(updates))
    assert said["clients"]["ids"] == [10, 11, 12]
    np.testing.assert_allclose(said["clients"]["cosine"], [[1, 0, -1], [0, 1, 0], [-1, 0, 1]])
    assert said["clients"]["conflicting"] == pytest.approx(1 / 3)
    assert said["clients"]["magnitude_similarity"] == pytest.approx((4 / 5 + 6 / 10 + 12 / 13) / 3)
    assert said["step_ratio"] == pytest.approx(4 / 2)
    # Task a moves by (0.5, 1), task b by (-3, 0).
    assert said["tasks"]["ids"] == ["a", "b"]
    assert said["tasks"]["cosine"][0][1] == pytest.approx(-1.5 / (1.25**0.5 * 3))
    assert said["tasks"]["conflicting"] == 1.0
    assert json.loads(json.dumps(said, allow_nan=False)) == said


@pytest.mark.parametrize("known", [False, True], ids=["fresh", "after a merge"])
def test_some_rows_are_compared(known):
    matrix = np.random.default_rng(0).normal(size=(9, 50))
    updates = updates_of(matrix)
    if known:
        assert updates.gram.shape == (9, 9)
    rows = torch.tensor([1, 4, 5, 8])
    gram = updates.rough_inner_products(rows)
    said = diagnose(updates, torch.ones(50), updates.clients[rows], gram)
    assert said["clients"]["ids"] == [11, 14, 15, 18]
    unit = matrix[rows] / np.linalg.norm(matrix[rows], axis=1, keepdims=True)
    np.testing.assert_allclose(said["clients"]["cosine"], unit @ unit.T, atol=1e-5)
    assert ("gram" in updates.__dict__) == known
    lengths = np.linalg.norm(matrix[rows], axis=1)
    assert said["step_ratio"] == pytest.approx(50**0.5 / lengths.mean(), rel=1e-5)


def test_updates_of_zero_have_no_direction():
    updates = updates_of([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    said = diagnose(updates, torch.zeros(2), *everyone(updates))
    assert said["clients"]["cosine"] == [[1.0, None, 1.0], [None] * 3, [1.0, None, 1.0]]
    assert said["clients"]["conflicting"] == 0.0
    assert said["clients"]["magnitude_similarity"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("matrix", [torch.zeros(0, 3), torch.ones(1, 3), torch.zeros(2, 3)])
def test_too_few_rows_to_compare(matrix):
    updates = updates_of(matrix)
    said = diagnose(updates, torch.zeros(3), *everyone(updates))
    assert said["clients"]["conflicting"] is None
    assert said["clients"]["magnitude_similarity"] is None
    assert len(said["clients"]["cosine"]) == len(matrix)
    assert said["step_ratio"] == (0.0 if matrix.any() else None)
    json.dumps(said, allow_nan=False)


@pytest.mark.parametrize(
    ("tasks", "known"),
    [
        ([[1, 1], [1, 1]], False),  # the same clients: one update
        ([[1, 1], [1, 0]], True),
        ([[1, 0], [0, 1]], True),
        ([[1, 1], [1, 1], [0, 0]], False),
    ],
)
def test_what_holds_by_construction_is_not_said(tasks, known):
    matrix = np.random.default_rng(0).normal(size=(len(tasks), 5))
    updates = updates_of(matrix, tasks)
    said = diagnose(updates, torch.zeros(5), *everyone(updates))["tasks"]
    assert [said["cosine"][i][i] for i in (0, 1)] == pytest.approx([1, 1])
    assert (said["cosine"][0][1] is not None) == known
    assert (said["conflicting"] is not None) == known == (said["magnitude_similarity"] is not None)


def test_agreement_within_clients_against_numpy():
    random = np.random.default_rng(1)
    gradients, grams, cosines = random.normal(size=(5, 3, 6)), np.full((5, 3, 3), np.nan), {}
    gradients[4, 0] = 0  # a task without labels
    for client, tasks in enumerate([(0, 1), (0, 1), (1, 2), (1,), (0, 1)]):
        own = gradients[client][list(tasks)]
        if len(tasks) > 1:
            grams[np.ix_([client], tasks, tasks)] = own @ own.T
            if own[0].any():
                u, v = own / np.linalg.norm(own, axis=1, keepdims=True)
                cosines.setdefault(tasks, []).append(u @ v)
    said = agreement_within(torch.from_numpy(grams), ("a", "b", "c"))
    assert (said["ids"], said["clients"]) == (["a", "b", "c"], 3)
    assert said["cosine"][0][1] == pytest.approx(np.mean(cosines[0, 1]))
    assert said["cosine"][2][1] == pytest.approx(np.mean(cosines[1, 2]))
    assert said["cosine"][0][2] is None
    assert said["conflicting"] == pytest.approx((np.concatenate([*cosines.values()]) < 0).mean())
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert agreement_within(torch.zeros(0, 3, 3), ("a", "b", "c"))["ids"] == []
