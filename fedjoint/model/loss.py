"""Losses per example: ``(output, y) -> (loss [n], known [n])``, zero where a label is missing."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fedjoint.errors import UserError, choose
from fedjoint.hooks import check_hooks
from fedjoint.model.positions import by_position, known_positions, mean_of_known
from fedjoint.options import Positive, make_plugin

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

#: a weight for each class, label or target
Weights = Annotated[Sequence[Positive], Field(min_length=1)]


class TaskLoss(ABC):
    """Base class of losses by name.

    Attributes:
        kinds: of the tasks that it is for.
    """

    kinds: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __call__(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return every example's loss ``[n]``, zero where there is no label, and where one is."""

    def summed(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses, and how many examples have a label.

        A loss may have a faster way to these two, for clients that train one by one.
        """
        return plainly_summed(self, output, y)

    def weights(self) -> Sequence[float] | None:
        """Return the weights of classes or targets; None: all are one."""
        return None

    def check(self, kind: str, outputs: int) -> None:
        """Refuse a task that the loss is not for.

        Raises:
            UserError: it is of another kind, or has not as many outputs as there are weights.
        """
        if kind not in self.kinds:
            raise choose("kind of task for this loss", kind, self.kinds)
        weights = self.weights()
        if weights is not None and len(weights) != outputs:
            raise UserError(f"it has {len(weights)} weights, and the task has {outputs} outputs")


class PositionLoss(TaskLoss):
    """A loss at every position, of which those with a label count.

    An example counts once, by the mean over its known positions, however many they are.
    """

    @abstractmethod
    def at(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the losses ``[n, p]``; those of missing labels are left out by the caller.

        Args:
            output: ``[n, p, k]``.
            y: ``[n, p]`` whole, or ``[n, p, k]`` real; zero where missing.
        """

    # Raises UserError where ``at`` returns another shape, which would be broadcast.
    def __call__(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        output, y = by_position(output, y)
        known = known_positions(y)
        y = y.nan_to_num() if y.is_floating_point() else y.clamp(min=0)
        losses = self.at(output, y)
        if not isinstance(losses, Tensor) or losses.shape != known.shape:
            form = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise UserError(
                f"{type(self).__name__}.at returns {form}, not of shape {tuple(known.shape)}: "
                "return a loss for each position (as with reduction='none')"
            )
        return mean_of_known(torch.where(known, losses, 0), known)


def summed(loss: Loss, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of a loss over examples, and how many of these have a label."""
    return loss.summed(output, y) if isinstance(loss, TaskLoss) else plainly_summed(loss, output, y)


def plainly_summed(loss: Loss, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`summed`, example by example, though the loss may have a way of its own."""
    values, known = loss(output, y)
    return values.sum(), known.sum()


def numbers(values: Sequence[float], like: Tensor) -> Tensor:
    """Return ``values`` as a tensor of the type and on the device of ``like``."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def make_loss(name: str, options: Mapping[str, Any]) -> TaskLoss:
    """Return a loss by registered name or reference.

    Raises:
        UserError: there is none, an option is wrong, or it is no loss that can be called.
    """
    loss = make_plugin("losses", name, options, TaskLoss)
    if isinstance(loss, PositionLoss):
        check_hooks(f"loss {name}", loss, PositionLoss)
    return loss


def per_example(loss: nn.Module) -> Loss:
    """Return a loss of ``torch.nn`` as one per example that leaves missing labels out.

    Args:
        loss: has a ``reduction``, which is ignored. It sees classes of a map or a sequence as
            PyTorch has them, in the second dimension.
    """
    loss = copy.deepcopy(loss)
    each: Any = loss
    each.reduction = "none"

    def losses(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        known = known_positions(by_position(output, y)[1])
        if y.is_floating_point():
            values = loss(output, y.nan_to_num())
            values = values.mean(1) if values.ndim == y.ndim else values  # over the targets
        else:
            output = output.movedim(-1, 1) if y.ndim == 2 else output
            values = loss(output, y.clamp(min=0))
        values = values.flatten(1) if values.ndim > 1 else values[:, None]
        return mean_of_known(torch.where(known, values, 0), known)

    return losses
