"""The reply to a request to evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Message, RecordDict
from torch import Tensor

from fedjoint._util.wording import plain
from fedjoint.data.base import CENTRAL, SHARED, SPLITS
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.protocol import wire
from fedjoint.protocol.checks import shaped
from fedjoint.protocol.reports import ClientFailure, columns
from fedjoint.protocol.requests import Asked
from fedjoint.protocol.training import Seconds


@dataclass(frozen=True)
class _Said:
    measures: tuple[str, ...]
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
    """

    measures: tuple[str, ...]
    failed: tuple[ClientFailure, ...]
    seconds: float
    sums: Mapping[str, Tensor | np.ndarray]
    blocks: Mapping[str, np.ndarray]
    values: np.ndarray

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        said = {"measures": self.measures, "seconds": self.seconds}
        return wire.pack(
            said | {"failed": [vars(failure) for failure in self.failed]},
            sums=self.sums,
            blocks=self.blocks,
            values={"values": self.values},
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
        sums, blocks = wire.arrays(message, "sums"), wire.arrays(message, "blocks")
        splits = [*SPLITS, CENTRAL]
        splits += [SHARED + split for split in splits]
        own_widths = {name: width for task in tasks for name, width in _widths(task).items()}
        widths = {f"{split}/{name}": k for name, k in own_widths.items() for split in splits}
        for name, rows in sums.items():
            if name not in widths:
                raise UserError(f"it has sums of {plain(name)!r}, which nobody has")
            count = len(rows) if rows.ndim else 0
            width = widths[name] or (rows.shape[-1] if rows.ndim == 2 else 0)
            shaped(sums, name, (count, width), "f")
            numbers = shaped(blocks, name, (count,), "iu")
            if not np.isin(numbers, asked.blocks).all() or len(np.unique(numbers)) < count:
                raise UserError(f"its sums of {name!r} are of other clients than were asked for")
        names = list(own_widths)
        shape = len(asked.clients), len(said.measures)
        own = shaped(wire.arrays(message, "values"), "values", shape, "f").astype(float)
        values = np.full((len(asked.clients), len(names)), np.nan)
        values[:, columns(said.measures, names)] = np.where(np.isfinite(own), own, np.nan)
        return cls(tuple(names), said.failed, said.seconds, sums, blocks, values)


def _widths(task: Task) -> dict[str, int | None]:
    """Return measure -> how many statistics it has; None where that is code of the run's own."""
    if task.metric or task.head:
        return dict.fromkeys(task.measures)
    output = torch.zeros(1, *(1 if length is None else length for length in task.output_shape))
    with torch.no_grad():
        found = task.metric_fn.statistics(output, task.missing(1))
    return {task.name: found.shape[-1]}
