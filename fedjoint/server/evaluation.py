"""Sums of the metrics' statistics -> metrics, and how the clients' own metrics differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import CENTRAL, SHARED, SPLITS
from fedjoint.model.tasks import Task, measures
from fedjoint.protocol.evaluation import EvaluateReply
from fedjoint.runs.record import Metrics
from fedjoint.server.outliers import usual
from fedjoint.server.roster import Seat
from fedjoint.server.shares import limited_together

Sums = dict[str, dict[int, np.ndarray]]

_BEYOND = 1e12  # times the median: statistics may be squares of what is a million times as large


def by_block(reply: EvaluateReply) -> Sums:
    """Return ``split/task`` -> block -> sums ``[k]`` float64 of a checked reply."""
    return {
        name: dict(zip(reply.blocks[name].tolist(), np.asarray(rows, float), strict=True))
        for name, rows in reply.sums.items()
    }


def odd_ones(replies: Mapping[Seat, EvaluateReply]) -> dict[Seat, str]:
    """Return whose sums have another number of statistics than most replies', and why."""
    widths: dict[str, Counter[int]] = {}
    for reply in replies.values():
        for name, rows in reply.sums.items():
            widths.setdefault(name, Counter()).update([rows.shape[1]])
    usual = {name: counted.most_common(1)[0][0] for name, counted in widths.items()}
    return {
        seat: f"its sums of {name!r} have {rows.shape[1]} statistics, elsewhere {usual[name]}"
        for seat, reply in replies.items()
        for name, rows in reply.sums.items()
        if rows.shape[1] != usual[name]
    }


def overstated(replies: Mapping[Seat, EvaluateReply]) -> dict[Seat, str]:
    """Return whose mean statistics are far beyond those of most replies, and why.

    Of fewer than three nobody can tell.
    """
    found: dict[Seat, str] = {}
    for name in sorted({name for reply in replies.values() for name in reply.sums}):
        means = {seat: _mean_of(r.sums[name]) for seat, r in replies.items() if name in r.sums}
        most = _BEYOND * usual(np.array(list(means.values())), least=1.0)
        why = f"its sums of {name!r} are, by example, more than {most:g}, beside the others'"
        found |= {seat: why for seat, mean in means.items() if mean > most}
    return found


def _mean_of(sums: Tensor | np.ndarray) -> float:
    """Return the greatest of the means of statistics, of sums ``[b, k]``, by absolute value."""
    count, *others = np.asarray(sums, float).sum(0).tolist()
    return max(map(abs, others), default=0.0) / count if count > 0 else 0.0


def plausible(values: np.ndarray) -> np.ndarray:
    """Return clients' own metrics ``[n, measures]``, NaN where far beyond those of most."""
    most = [_BEYOND * usual(column, least=1.0) for column in np.abs(values).T]
    return np.where(np.abs(values) > np.array(most), np.nan, values)


def limited_sums(sums: Sums, owners: Mapping[int, int], most: float) -> Sums:
    """Return sums in which no node counts for more than ``most`` of a metric's examples.

    Those of a node with more are scaled down, as if it had fewer examples alike.

    Args:
        sums: see :func:`by_block`; the first of a metric's statistics is the count.
        owners: block -> the node where its clients live.
        most: above 0, up to 1.
    """
    found: Sums = {}
    for name, blocks in sums.items():
        counts = np.array([rows[0] for rows in blocks.values()])
        theirs = np.array([owners[block] for block in blocks])
        factors = limited_together(counts, theirs, most) / np.where(counts > 0, counts, 1)
        found[name] = {
            block: rows * factor
            for (block, rows), factor in zip(blocks.items(), factors, strict=True)
        }
    return found


def spread(values: np.ndarray, tasks: Sequence[Task]) -> dict[str, dict[str, float | int]]:
    """Describe how the clients' own metrics differ, measure by measure.

    Args:
        values: ``[clients, measures]``, NaN where undefined.
        tasks: say which direction of a metric is better.

    Returns:
        measure -> ``clients`` (that have the metric), ``std`` (its standard deviation over them),
        ``worst`` (of the worst client) and ``worst_tenth`` (the mean over the worst tenth, one
        client at least). What no client has is left out.
    """
    found: dict[str, dict[str, float | int]] = {}
    for column, (name, metric) in zip(values.T, measures(tasks).items(), strict=True):
        known = np.sort(column[np.isfinite(column)])
        if not metric.higher_is_better:
            known = known[::-1]
        if len(known):
            found[name] = {
                "clients": len(known),
                "std": float(known.std()),
                "worst": float(known[0]),
                "worst_tenth": float(known[: math.ceil(len(known) / 10)].mean()),
            }
    return found


def by_client(
    values: Mapping[str, np.ndarray], ids: np.ndarray, tasks: Sequence[Task]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return split -> measure -> id -> the client's own metric; what is undefined is left out.

    Args:
        values: split -> ``[clients, measures]``, NaN where undefined.
        ids: ``[clients]``.
        tasks: have the measures.
    """
    order = np.argsort(ids)
    return {
        split: {
            measure: {str(ids[at]): float(column[at]) for at in order if np.isfinite(column[at])}
            for measure, column in zip(measures(tasks), rows.T, strict=True)
        }
        for split, rows in values.items()
    }


def pooled(sums: Sums, tasks: Sequence[Task]) -> dict[str, Metrics]:
    """Return split -> measure -> metric of all clients' examples together.

    Splits of the shared backbone are there where clients measured it.
    """
    found: dict[str, Metrics] = {}
    measured = {name.partition("/")[0] for name in sums}
    splits = (*SPLITS, CENTRAL) if CENTRAL in measured else SPLITS
    shared = [SHARED + split for split in splits]
    for split in [*splits, *(shared if measured & set(shared) else [])]:
        found[split] = {}
        for name, metric in measures(tasks).items():
            blocks = sums.get(f"{split}/{name}", {})
            # Always in the order of the blocks: the sum does not depend on arrival.
            parts = [torch.from_numpy(blocks[block].copy()) for block in sorted(blocks)]
            value = metric.value(torch.stack(parts).sum(0)) if parts else math.nan
            found[split][name] = value if math.isfinite(value) else None
    return found
