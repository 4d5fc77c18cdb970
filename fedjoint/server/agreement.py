"""How much the updates of a round agree: what a report shows beside the metrics."""

from __future__ import annotations

from math import isnan

import torch
from torch import Tensor

from fedjoint.server.updates import Updates


def diagnose(updates: Updates, step: Tensor, ids: Tensor, gram: Tensor) -> dict[str, object]:
    """Describe the agreement of the updates of a round, in values that JSON can hold.

    Args:
        updates: the round's updates.
        step: ``[P]``, what they were merged into.
        ids: ``[n]`` the clients that are compared with one another, a sample of the round's.
        gram: ``[n, n]`` float64, the inner products of their updates.

    Returns:
        ``clients`` and ``tasks``, each with

        - ``ids``: client ids or task names, in the order of the rows;
        - ``cosine``: their cosines, a list of rows; None where an update is zero, and between
          tasks of the very same clients, whose updates are one by construction where clients do
          not tell them apart (``Updates.deviations``);
        - ``conflicting``: the share of pairs with a negative cosine, in [0, 1];
        - ``magnitude_similarity``: the mean over pairs of
          ``2 * |a| * |b| / (|a|^2 + |b|^2)``, in [0, 1], one for equal lengths;

        the last two over pairs that have a cosine, and None where there are none; and

        - ``step_ratio``: the length of the step over the mean length of the compared updates,
          None where that is zero.

    The magnitude similarity is from Yu et al., "Gradient Surgery for Multi-Task Learning",
    NeurIPS 2020, https://arxiv.org/abs/2001.06782
    """
    tasks = updates.by_task()
    mean = float(gram.diagonal().clamp(min=0).sqrt().mean()) if len(ids) else 0.0
    return {
        "clients": _agreement(gram, torch.zeros(gram.shape, dtype=torch.bool))
        | {"ids": ids.tolist()},
        "tasks": _agreement(tasks.gram, _same_updates(updates, tasks))
        | {"ids": [updates.task_names[task] for task in tasks.clients.tolist()]},
        "step_ratio": float(step.double().norm()) / mean if mean > 0 else None,
    }


def agreement_within(grams: Tensor, names: tuple[str, ...]) -> dict[str, object]:
    """Describe how the tasks of single clients agree, in values that JSON can hold.

    Args:
        grams: ``[clients, tasks, tasks]`` float64, inner products of the gradients of a client's
            tasks by the shared backbone, NaN where it has not both.
        names: of the tasks.

    Returns:
        - ``ids``: the names of the tasks that were compared, in the order of the rows;
        - ``cosine``: the mean cosine over the clients with both tasks, a list of rows; None where
          there are none;
        - ``conflicting``: the share of pairs of tasks of one client with a negative cosine, over
          all clients; None without pairs;
        - ``clients``: how many clients were measured.
    """
    lengths = grams.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    products = lengths[:, :, None] * lengths[:, None, :]  # finite, whatever a node claims
    known = products > 0  # and not NaN
    cosine = torch.where(known, grams / products, 0).clamp(-1, 1)
    pairs = known & torch.ones_like(known).triu(diagonal=1)
    count = known.sum(0)
    mean = torch.where(count > 0, cosine.sum(0) / count, torch.nan)
    both = (count - count.diagonal().diag()).any(1).nonzero().squeeze(1)
    return {
        "ids": [names[task] for task in both.tolist()],
        "cosine": _none_for_nan(mean[both][:, both]),
        "conflicting": float((cosine[pairs] < 0).double().mean()) if pairs.any() else None,
        "clients": int(pairs.any(2).any(1).sum()),
    }


def _same_updates(updates: Updates, tasks: Updates) -> Tensor:
    """Return ``[rows, rows]`` bool, which tasks' updates are one, of the very same clients."""
    if updates.deviations is not None:
        return torch.zeros(len(tasks), len(tasks), dtype=torch.bool)
    members = updates.tasks.T[tasks.clients]
    same = (members[:, None] == members).all(2)
    return same.fill_diagonal_(False)


def _agreement(gram: Tensor, hidden: Tensor) -> dict[str, object]:
    """Return cosines, share of conflicts and magnitude similarity from ``[rows, rows]``.

    Args:
        gram: the inner products.
        hidden: ``[rows, rows]`` bool, the pairs about which they say nothing.
    """
    square = gram.diagonal().clamp(min=0)
    products = torch.outer(square.sqrt(), square.sqrt())
    known = (products > 0) & ~hidden
    cosine = (gram / products.where(known, torch.ones_like(products))).clamp(-1, 1)
    pairs = known.triu(diagonal=1)
    similarity = 2 * products / (square[:, None] + square)
    return {
        "cosine": _none_for_nan(cosine.where(known, torch.nan)),
        "conflicting": float((cosine[pairs] < 0).double().mean()) if pairs.any() else None,
        "magnitude_similarity": float(similarity[pairs].mean()) if pairs.any() else None,
    }


def _none_for_nan(matrix: Tensor) -> list[list[float | None]]:
    return [[None if isnan(value) else value for value in row] for row in matrix.tolist()]
