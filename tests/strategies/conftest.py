"""Rounds of random updates."""

from collections.abc import Callable

import pytest
import torch

from fedjoint.model.layout import Layout
from fedjoint.server.updates import Updates

TASKS = ("a", "b", "c")


def make_updates(matrix: torch.Tensor, round: int = 1, seed: int = 0) -> Updates:
    """Wrap ``matrix``; weights, steps, tasks (one or two a client) and extras are random."""
    rows, size = matrix.shape
    random = torch.Generator().manual_seed(seed)
    examples = torch.randint(1, 50, (rows,), generator=random)
    tasks = torch.rand(rows, len(TASKS), generator=random) < 0.3
    tasks[torch.arange(rows), torch.arange(rows) % len(TASKS)] = True
    return Updates(
        matrix=matrix,
        weights=examples / examples.sum(),
        examples=examples,
        clients=3 * torch.arange(rows),
        tasks=tasks,
        task_names=TASKS,
        steps=torch.randint(1, 9, (rows,), generator=random),
        backbone=torch.randn(size, generator=random),
        layout=Layout({"w": (size,)}),
        round=round,
        extras={
            "control": torch.randn(rows, size, generator=random),
        },
    )


@pytest.fixture
def wrap() -> Callable[..., Updates]:
    """Make updates of a matrix."""
    return make_updates


@pytest.fixture
def draw() -> Callable[..., Updates]:
    """Make ``rows`` random updates that share a direction as far as ``common`` says."""

    def draw(rows: int, size: int = 30, common: float = 0.3, seed: int = 0, round: int = 1):
        random = torch.Generator().manual_seed(seed)
        matrix = torch.randn(rows, size, generator=random)
        matrix *= 0.2 + torch.rand(rows, 1, generator=random)
        return make_updates(matrix + common * torch.randn(size, generator=random), round, seed)

    return draw
