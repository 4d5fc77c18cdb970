"""Replies of an evaluation -> sums of the metrics' statistics, checked here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import Message

from fedjoint import messages
from fedjoint.checks import shaped
from fedjoint.collect import Asked
from fedjoint.errors import UserError
from fedjoint.tasks import Task
from fedjoint.text import plain

SPLITS = ("train", "valid", "test")

Sums = dict[str, dict[int, np.ndarray]]


def read(reply: Message, asked: Asked, tasks: Sequence[Task]) -> tuple[Sums, list[tuple[int, str]]]:
    """Return ``split/task`` -> block -> sums ``[k]``, and the clients that failed, with reasons.

    Args:
        reply: of one node.
        asked: what it was asked.
        tasks: all tasks.

    Raises:
        UserError: it failed, or the reply is not about what was asked.
    """
    if reply.has_error():
        raise UserError(reply.error.reason or "evaluation failed")
    told = messages.settings(reply).get("failed")
    try:
        failed = [(int(failure["client"]), plain(failure["reason"])) for failure in told or ()]
    except (TypeError, KeyError, ValueError):
        raise UserError("damaged message: 'failed' is no list of clients and reasons") from None
    rows, blocks = messages.arrays(reply, "sums"), messages.arrays(reply, "blocks")
    widths = {f"{split}/{task.name}": _width(task) for task in tasks for split in SPLITS}
    sums: Sums = {}
    for name, values in rows.items():
        if name not in widths:
            raise UserError(f"it has sums of {plain(name)!r}, which nobody has")
        count = len(values) if values.ndim else 0
        width = widths[name] or (values.shape[-1] if values.ndim == 2 else 0)
        shaped(rows, name, (count, width), "f")
        numbers = shaped(blocks, name, (count,), "iu")
        if not np.isin(numbers, asked.blocks).all() or len(np.unique(numbers)) < count:
            raise UserError(f"its sums of {name!r} are of other clients than were asked for")
        sums[name] = dict(zip(numbers.tolist(), values.astype(float), strict=True))
    return sums, failed


def _width(task: Task) -> int | None:
    """Return how many statistics a task's metric has; None where it is code of the run's own."""
    if task.metric or task.head:
        return None
    with torch.no_grad():
        found = task.metric_fn.statistics(torch.zeros(1, task.outputs), task.missing(1))
    return found.shape[-1]
