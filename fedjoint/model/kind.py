"""The base of the kinds of task: their labels, their outputs, and what they begin with."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from fedjoint.model.features import Features
from fedjoint.model.loss import TaskLoss
from fedjoint.model.metric import Metric

Size = tuple[int, ...]


class Kind:
    """A kind of task. Of all methods, ``outputs`` and ``size`` are the task's.

    Attributes:
        name: of the kind.
        counts: what ``outputs`` counts.
        least: fewest outputs.
        dimensions: of one example's label: ``counts``, a name of a number of ``Task.size``, or how
            long it always is.
        whole: whether labels are whole numbers, of which -1 is missing; else NaN is.
        scaled: whether labels are targets with a scale.
        loss: by default.
        metric: by default.
    """

    name: ClassVar[str]
    counts: ClassVar[str] = "classes"
    least: ClassVar[int] = 2
    dimensions: ClassVar[tuple[str | int, ...]] = ()
    whole: ClassVar[bool] = True
    scaled: ClassVar[bool] = False
    loss: ClassVar[TaskLoss]
    metric: ClassVar[Metric]

    @property
    def size(self) -> tuple[str, ...]:
        """What the numbers of ``Task.size`` are."""
        return tuple(d for d in self.dimensions if isinstance(d, str) and d != self.counts)

    def label(self, outputs: int, size: Size) -> tuple[int, ...]:
        """Return the shape of one example's label."""
        lengths = {self.counts: outputs, **dict(zip(self.size, size, strict=True))}
        return tuple(d if isinstance(d, int) else lengths[d] for d in self.dimensions)

    def outputs_in(self, y: Tensor) -> int:
        """Return the least ``outputs`` of a task with such labels."""
        if self.counts in self.dimensions:
            return y.shape[1 + self.dimensions.index(self.counts)]
        return max(self.least, int(y.max()) + 1)

    def output(self, outputs: int, size: Size) -> tuple[int | None, ...]:
        """Return the shape of one example's output; None: any length."""
        raise NotImplementedError

    def head(self, features: Features, outputs: int, size: Size) -> nn.Module:
        """Return a new head, as tasks have by default.

        Raises:
            UserError: there is none for such features.
        """
        raise NotImplementedError

    def wrong(self, y: Tensor, outputs: int) -> str | None:
        """Say what is wrong with labels of the right type and shape; None: nothing.

        Args:
            y: labels, some of them missing.
            outputs: of the task.
        """
        if y.is_floating_point():
            return "a label is infinite; a missing one is NaN" if y.isinf().any() else None
        if y.numel() and int(y.max()) >= outputs:
            return (
                f"class {int(y.max())} of {outputs}; number classes from 0, or raise the task's "
                "outputs"
            )
        if y.numel() and int(y.min()) < -1:
            return f"class {int(y.min())}; number classes from 0, a missing one is -1"
        return None

    def constant(self, y: Tensor, outputs: int, size: Size) -> Tensor:
        """Return ``[1, ...]``, the output of a model that takes no notice of inputs.

        Args:
            y: training labels, some of them missing.
            outputs: of the task.
            size: of the task.
        """
        raise NotImplementedError

    def predicted(self, output: Tensor) -> dict[str, Tensor]:
        """Return what outputs ``[n, ...]`` say: "" is what is predicted, others say how surely."""
        raise NotImplementedError

    def strata(self, y: Tensor) -> Tensor:
        """Return ``[n]`` int64 by which a partition may be skewed."""
        return torch.zeros(len(y), dtype=torch.int64)
