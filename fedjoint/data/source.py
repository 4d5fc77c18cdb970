"""The base of every data source."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fedjoint.config.data import DataConfig
from fedjoint.data.base import Federation
from fedjoint.data.dataset import Dataset
from fedjoint.data.divide import divide
from fedjoint.data.split import moments
from fedjoint.model.inputs import Description, Inputs
from fedjoint.model.stream import loaded
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, cat, each

Built = tuple[list[Task], Federation, Input]


@dataclass(frozen=True)
class Scaling:
    """How numbers as a user's file has them become those that a backbone was trained on.

    Attributes:
        mean: of the shape of an input; it is subtracted.
        scale: of the shape of an input; it divides.
        words: what mean and scale are, in words.
    """

    mean: Tensor
    scale: Tensor
    words: str


class Source:
    """Base class of the data sources. A plug-in implements :meth:`load`.

    Options are the arguments of ``__init__``. Where examples are generated for each client rather
    than divided among them, override :meth:`build` in its place.

    Attributes:
        generated: whether every seed has examples of its own, and not a split of its own.
        standardise: whether each client scales features by its own training examples, see
            :func:`fedjoint.data.split.standardised`.
    """

    generated: ClassVar[bool] = False
    standardise: bool = False

    def load(self, data: DataConfig) -> Dataset:
        """Load all examples.

        Args:
            data: the ``data`` table. A source that reads labels heeds ``outputs``, and one that
                knows whose an example is ``partition = "natural"``.

        Raises:
            UserError: they are missing or malformed.
        """
        raise NotImplementedError

    def build(self, data: DataConfig, seed: int, ids: Sequence[int] | None = None) -> Built:
        """Return the tasks, the clients, and ``[1, ...]`` an input.

        Args:
            data: the ``data`` table.
            seed: decides the partition, the splits and whatever is generated.
            ids: the clients' ids, where the data is that of a few of the clients.

        Raises:
            UserError: the data does not suffice for the clients, or does not fit ``data``.
        """
        return divide(self.load(data), data, seed, ids, self.mix, self.standardise)

    def mix(self, names: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return the tasks that clients have, in turn, unless ``data.task_mix`` says otherwise.

        Args:
            names: of all tasks.
        """
        return [names]

    def describe(self, example: Input) -> Description:
        """Describe ``example``, ``[1, ...]`` an input, each of its tensors by itself.

        Raises:
            UserError: a file of the source is gone or changed.
        """
        described: Description = each(self.inputs, example)
        return described

    def inputs(self, example: Tensor) -> Inputs:
        """Describe ``example``, ``[1, ...]`` a tensor of an input, to someone who has a file.

        Raises:
            UserError: a file of the source is gone or changed.
        """
        shape, kind = tuple(example.shape[1:]), example.dtype
        real = kind.is_floating_point and len(shape) == 1
        columns = [f"x{i}" for i in range(shape[0])] if real else None
        name: Any = str(kind).removeprefix("torch.")
        return Inputs(shape=shape, dtype=name, columns=columns)

    def options_to_read(self, inputs: Inputs, named: Collection[str]) -> dict[str, Any]:
        """Return the options with which it reads what a backbone was trained on, as that was read.

        Args:
            inputs: what the backbone was trained on.
            named: options that somebody has chosen; one of these is returned where it says the
                same in another order.
        """
        return {}

    def class_names(self, task: Task) -> list[str] | None:
        """Return the names of the classes of examples, or of tokens, by number; None: none.

        Raises:
            UserError: a file of the source is gone or changed.
        """
        return None

    def legend(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        """Return what the classes of ``tasks`` are called, for :attr:`Dataset.legend`."""
        kept = [task for task in tasks if task.kind in ("multiclass", "tokens")]
        return tuple(f"{t.name}: {name}" for t in kept for name in self.class_names(t) or ())

    def unscaled(self, data: DataConfig, seed: int, ids: Sequence[int] | None) -> Federation | None:
        """Return the clients with what a user's file has; None: that is what they have anyway.

        Args:
            data: as for :meth:`build`.
            seed: as for :meth:`build`.
            ids: as for :meth:`build`.
        """
        if not self.standardise:
            return None
        raw = copy.copy(self)
        raw.standardise = False
        return raw.build(data, seed, ids)[1]

    def scaling(self, clients: Federation | None, places: Sequence[int]) -> Scaling | None:
        """Return how a model scales what a user's file has; None: not at all.

        Args:
            clients: as :meth:`unscaled` returns them.
            places: the clients whose model it is, by their places in the federation.
        """
        if clients is None:
            return None
        x = cat([loaded(clients.client(place).train.x) for place in places])
        return Scaling(*moments(x), "mean and deviation of the clients' training examples, pooled")
