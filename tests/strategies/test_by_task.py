"""Updates by task: what a client with several tasks counts for."""

from dataclasses import replace

import pytest
import torch

from fedjoint.model.layout import Layout
from fedjoint.server.updates import Updates
from fedjoint.strategies.pcgrad import PCGrad


def updates_of(matrix, tasks, weights):
    matrix, tasks = torch.tensor(matrix), torch.tensor(tasks, dtype=torch.bool)
    ones = torch.ones(len(matrix), dtype=torch.int64)
    return Updates(
        matrix=matrix,
        weights=torch.tensor(weights),
        examples=ones,
        clients=torch.arange(len(matrix)),
        tasks=tasks,
        task_names=tuple("abc"[: tasks.shape[1]]),
        steps=ones,
        backbone=torch.zeros(matrix.shape[1]),
        layout=Layout({"w": (matrix.shape[1],)}),
        round=1,
    )


def test_a_client_with_two_tasks_counts_half_in_each():
    updates = updates_of([[1.0, 0.0], [0.0, 1.0]], [[1, 0], [1, 1]], [0.5, 0.5])
    tasks = updates.by_task()
    torch.testing.assert_close(tasks.weights, torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(tasks.matrix, torch.tensor([[2 / 3, 1 / 3], [0.0, 1.0]]))
    # Without a conflict, PCGrad is FedAvg: (0.5, 0.5), where full counts gave (0.333, 0.667).
    torch.testing.assert_close(PCGrad().merge(updates), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_over_tasks_is_the_mean_over_clients(draw, seed):
    updates = draw(9, seed=seed)
    assert (updates.tasks.sum(1) > 1).any()
    tasks = updates.by_task()
    torch.testing.assert_close(tasks.mean(), updates.mean())
    torch.testing.assert_close(tasks.weights.sum(), torch.tensor(1.0))


def test_blocks_of_clients_with_the_same_tasks_suffice(draw):
    updates = draw(9)
    kinds, block = updates.tasks.unique(dim=0, return_inverse=True)
    member = torch.nn.functional.one_hot(block).T.float() * updates.weights
    blocks = replace(
        updates,
        matrix=member @ updates.matrix / member.sum(1, keepdim=True),
        weights=member.sum(1),
        tasks=kinds,
        clients=torch.arange(len(kinds)),
        examples=torch.ones(len(kinds), dtype=torch.int64),
        steps=torch.ones(len(kinds), dtype=torch.int64),
    )
    found, expected = blocks.by_task(), updates.by_task()
    torch.testing.assert_close(found.matrix, expected.matrix)
    torch.testing.assert_close(found.weights, expected.weights)
