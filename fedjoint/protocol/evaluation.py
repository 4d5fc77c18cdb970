"""The reply to a request to evaluate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from flwr.app import Message, RecordDict
from torch import Tensor

from fedjoint._util.wording import plain
from fedjoint.data.base import CENTRAL, SHARED, SPLITS
from fedjoint.errors import ANYTHING, UserError
from fedjoint.model.metric import Metric
from fedjoint.model.tasks import Task
from fedjoint.protocol import wire
from fedjoint.protocol.checks import Name, Seconds, shaped
from fedjoint.protocol.reports import ClientFailure, columns, of_asked
from fedjoint.protocol.requests import Asked

_MOST_OF_A_VALUE = 1e100  # so that squares have sums
_OTHERS = ("train", "valid")  # splits beside test of which clients may tell metrics of their own
_HELD = ("valid", "test", CENTRAL)  # columns of ``Asked.held``


@dataclass(frozen=True)
class _Said:
    measures: tuple[Name, ...]
    failed: tuple[ClientFailure, ...]
    seconds: Seconds


@dataclass(frozen=True)
class EvaluateReply:
    """What a node says after it evaluated.

    Attributes:
        measures: what the columns of ``values`` are: a task, for its first metric, or
            ``task/metric``.
        failed: the clients that were not evaluated, with reasons.
        seconds: how long it took.
        sums: ``split/measure``, or ``shared_split/measure`` of the shared backbone, -> ``[b, k]``,
            the metric's statistics, summed over blocks of clients.
        blocks: ``split/measure`` -> ``[b]`` int64, numbers of those blocks.
        values: ``[n, measures]`` float, each client's own test metrics; NaN where undefined.
        others: ``train`` and ``valid`` -> the same of these splits, where clients are tasks
            (``data.clients_are_tasks``); else empty.
    """

    measures: tuple[str, ...]
    failed: tuple[ClientFailure, ...]
    seconds: float
    sums: Mapping[str, Tensor | np.ndarray]
    blocks: Mapping[str, np.ndarray]
    values: np.ndarray
    others: Mapping[str, np.ndarray] = field(default_factory=dict)

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        said = {"measures": self.measures, "seconds": self.seconds}
        return wire.pack(
            said | {"failed": [vars(failure) for failure in self.failed]},
            sums=self.sums,
            blocks=self.blocks,
            values={"values": self.values, **self.others},
        )

    @classmethod
    def unpack(cls, message: Message, asked: Asked, tasks: Sequence[Task]) -> EvaluateReply:
        """Return the checked reply in ``message``, its values in the order of ``tasks``.

        Args:
            message: the reply.
            asked: what the node was asked.
            tasks: all tasks.

        Raises:
            UserError: the reply is damaged, or not about what was asked.
        """
        said = wire.read(_Said, message)
        of_asked(said.failed, asked)
        sums, blocks = wire.arrays(message, "sums"), wire.arrays(message, "blocks")
        splits = [*SPLITS, CENTRAL]
        splits += [SHARED + split for split in splits]
        widths = {n: _width(m, task.bare) for task in tasks for n, m in task.measures.items()}
        owners = {name: n for n, task in enumerate(tasks) for name in task.measures}
        places = {f"{split}/{name}": (split, name) for name in widths for split in splits}
        for name, rows in sums.items():
            if name not in places:
                raise UserError(f"it has sums of {plain(name)!r}, which nobody has")
            split, measure = places[name]
            count = len(rows) if rows.ndim else 0
            width = widths[measure] or max(1, rows.shape[-1] if rows.ndim else 0)
            shaped(sums, name, (count, width), "f")
            if not np.isfinite(rows).all():
                raise UserError(f"its sums of {name!r} are not finite")
            numbers = shaped(blocks, name, (count,), "iu")
            if not np.isin(numbers, asked.blocks).all() or len(np.unique(numbers)) < count:
                raise UserError(f"its sums of {name!r} are of other clients than were asked for")
            most = _most(asked, owners[measure], split.removeprefix(SHARED))
            if (rows[:, 0] < 0).any() or rows[:, 0].sum() > most:
                raise UserError(f"its sums of {name!r} count more examples than its clients have")
        names = list(widths)
        told = wire.arrays(message, "values")
        if strange := told.keys() - {"values", *_OTHERS}:
            raise UserError(f"it has values of {plain(min(strange))!r}, for which nobody asked")
        shape = len(asked.clients), len(said.measures)
        own = {}
        for name in ("values", *(other for other in _OTHERS if other in told)):
            array = shaped(told, name, shape, "f").astype(float)
            own[name] = np.full((len(asked.clients), len(names)), np.nan)
            known = np.abs(array) < _MOST_OF_A_VALUE  # and not NaN
            own[name][:, columns(said.measures, names)] = np.where(known, array, np.nan)
        values = own.pop("values")
        return cls(tuple(names), said.failed, said.seconds, sums, blocks, values, own)


def _most(asked: Asked, column: int, split: str) -> float:
    """Return the most examples of a task that the clients have together.

    Raises:
        UserError: none of them has the task.
    """
    has = asked.tasks[:, column]
    if not has.any():
        raise UserError("its sums are of a task that its clients do not have")
    if split == "train":
        return math.inf if asked.declared is None else float(asked.declared[has].sum())
    return math.inf if asked.held is None else float(asked.held[has, _HELD.index(split)].sum())


@lru_cache(maxsize=4096)
def _width(metric: Metric, task: Task) -> int | None:
    """Return how many statistics a metric has; None where only its own code knows.

    Args:
        metric: the metric.
        task: one that it measures.
    """
    output = torch.zeros(1, *(1 if length is None else length for length in task.output_shape))
    try:
        with torch.no_grad():
            return int(metric.statistics(output, task.missing(1)).shape[-1])
    except ANYTHING:  # a user's own may take no made-up example
        return None
