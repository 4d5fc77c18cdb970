"""Replies of an evaluation -> sums of the metrics' statistics, and each client's own metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import Message

from fedjoint._util.wording import plain
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.protocol import messages
from fedjoint.protocol.checks import shaped
from fedjoint.runs.record import Failure, Metrics
from fedjoint.server.population import Asked

SPLITS = ("train", "valid", "test")

Sums = dict[str, dict[int, np.ndarray]]


def read(
    reply: Message, asked: Asked, tasks: Sequence[Task]
) -> tuple[Sums, np.ndarray, list[Failure]]:
    """Check the reply of one node.

    Args:
        reply: the reply.
        asked: what the node was asked.
        tasks: all tasks.

    Returns:
        ``split/task`` -> block -> sums ``[k]``; ``[clients, tasks]`` float64, the clients' own
        test metrics, NaN where undefined; and the clients that failed, with reasons.

    Raises:
        UserError: it failed, or the reply is not about what was asked.
    """
    if reply.has_error():
        raise UserError(reply.error.reason or "evaluation failed")
    config = messages.settings(reply)
    try:
        told = config.get("failed") or ()
        node = reply.metadata.src_node_id
        failed = [Failure(int(f["client"]), node, plain(f["reason"])) for f in told]
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
    return sums, _own(reply, asked, config.get("tasks"), [task.name for task in tasks]), failed


def _own(reply: Message, asked: Asked, named: object, tasks: list[str]) -> np.ndarray:
    """Return ``[clients, tasks]`` float64, the clients' own test metrics."""
    if not isinstance(named, list) or any(name not in tasks for name in named):
        raise UserError(f"its metrics are of tasks that nobody has: {plain(named)}")
    shape = len(asked.clients), len(named)
    own = shaped(messages.arrays(reply, "values"), "values", shape, "f").astype(float)
    values = np.full((len(asked.clients), len(tasks)), np.nan)
    values[:, [tasks.index(name) for name in named]] = np.where(np.isfinite(own), own, np.nan)
    return values


def spread(values: np.ndarray, tasks: Sequence[Task]) -> dict[str, dict[str, float | int]]:
    """Describe how the clients' own metrics differ, task by task.

    Args:
        values: ``[clients, tasks]``, NaN where undefined.
        tasks: say which direction of a metric is better.

    Returns:
        task -> ``clients`` (that have the metric), ``std`` (its standard deviation over them),
        ``worst`` (of the worst client) and ``worst_tenth`` (the mean over the worst tenth, one
        client at least). Tasks of which no client has the metric are left out.
    """
    found: dict[str, dict[str, float | int]] = {}
    for column, task in zip(values.T, tasks, strict=True):
        known = np.sort(column[np.isfinite(column)])
        if not task.metric_fn.higher_is_better:
            known = known[::-1]
        if len(known):
            found[task.name] = {
                "clients": len(known),
                "std": float(known.std()),
                "worst": float(known[0]),
                "worst_tenth": float(known[: math.ceil(len(known) / 10)].mean()),
            }
    return found


def pooled(sums: Sums, tasks: Sequence[Task]) -> dict[str, Metrics]:
    """Return split -> task -> metric of all clients' examples together."""
    found: dict[str, Metrics] = {}
    for split in SPLITS:
        found[split] = {}
        for task in tasks:
            blocks = sums.get(f"{split}/{task.name}", {})
            # Always in the order of the blocks: the sum does not depend on arrival.
            parts = [torch.from_numpy(blocks[block].copy()) for block in sorted(blocks)]
            value = task.metric_fn.value(torch.stack(parts).sum(0)) if parts else math.nan
            found[split][task.name] = value if math.isfinite(value) else None
    return found


def _width(task: Task) -> int | None:
    """Return how many statistics a task's metric has; None where it is code of the run's own."""
    if task.metric or task.head:
        return None
    with torch.no_grad():
        found = task.metric_fn.statistics(torch.zeros(1, task.outputs), task.missing(1))
    return found.shape[-1]
