"""How the targets of a regression task are scaled in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from fedjoint.errors import UserError

#: by each client's own examples, not at all, or by a mean and a deviation that all agree on
TargetScale = Literal["own", "none"] | Sequence[float | Sequence[float]]


def checked_scale(task: str, kind: str, scaled: bool, outputs: int, scale: Any) -> TargetScale:
    """Return the scale of a task, its agreed numbers as two tuples.

    Args:
        task: its name.
        kind: of the task.
        scaled: whether that kind has targets.
        outputs: of the task.
        scale: see :class:`fedjoint.model.tasks.Task`.

    Raises:
        UserError: it is none, or the task is no regression.
    """
    if not scaled:
        raise UserError(f"task {task!r} is {kind}: only a regression's targets have a scale")
    if scale in ("own", "none"):
        return scale
    cure = f"give 'own', 'none' or [mean, deviation], each a number or {outputs} of them"
    if isinstance(scale, str) or not isinstance(scale, Sequence) or len(scale) != 2:
        raise UserError(f"the scale of task {task!r} is {scale!r}: {cure}")
    mean, deviation = (_numbers(part, outputs) for part in scale)
    if mean is None or deviation is None or not all(number > 0 for number in deviation):
        raise UserError(f"the scale of task {task!r} is {scale!r}: {cure}, the deviation above 0")
    return mean, deviation


def _numbers(part: Any, outputs: int) -> tuple[float, ...] | None:
    """Return ``outputs`` finite numbers, None where ``part`` is something else."""
    numbers = (part,) * outputs if isinstance(part, int | float) else part
    if isinstance(numbers, str) or not isinstance(numbers, Sequence) or len(numbers) != outputs:
        return None
    plain = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    return tuple(map(float, numbers)) if plain else None
