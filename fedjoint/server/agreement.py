"""How much the updates of a round agree: what a report shows beside the metrics."""

from __future__ import annotations

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
        - ``cosine``: their cosines, a list of rows; None where an update is zero;
        - ``conflicting``: the share of pairs with a negative cosine, in [0, 1];
        - ``magnitude_similarity``: the mean over pairs of
          ``2 * |a| * |b| / (|a|^2 + |b|^2)``, in [0, 1], one for equal lengths;

        the last two over pairs of updates that are not zero, and None where there are none; and

        - ``step_ratio``: the length of the step over the mean length of the compared updates,
          None where that is zero.

    The magnitude similarity is from Yu et al., "Gradient Surgery for Multi-Task Learning",
    NeurIPS 2020, https://arxiv.org/abs/2001.06782
    """
    tasks = updates.by_task()
    mean = float(gram.diagonal().clamp(min=0).sqrt().mean()) if len(ids) else 0.0
    return {
        "clients": _agreement(gram) | {"ids": ids.tolist()},
        "tasks": _agreement(tasks.gram)
        | {"ids": [updates.task_names[task] for task in tasks.clients.tolist()]},
        "step_ratio": float(step.double().norm()) / mean if mean > 0 else None,
    }


def _agreement(gram: Tensor) -> dict[str, object]:
    """Return cosines, share of conflicts and magnitude similarity from ``[rows, rows]``."""
    square = gram.diagonal().clamp(min=0)
    products = torch.outer(square.sqrt(), square.sqrt())
    known = products > 0
    cosine = (gram / products.where(known, torch.ones_like(products))).clamp(-1, 1)
    pairs = known.triu(diagonal=1)
    similarity = 2 * products / (square[:, None] + square)
    return {
        "cosine": [
            [value if there else None for value, there in zip(values, row, strict=True)]
            for values, row in zip(cosine.tolist(), known.tolist(), strict=True)
        ],
        "conflicting": float((cosine[pairs] < 0).double().mean()) if pairs.any() else None,
        "magnitude_similarity": float(similarity[pairs].mean()) if pairs.any() else None,
    }
