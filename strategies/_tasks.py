"""The tasks that a strategy's state is about, which on real machines come and go with nodes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import torch
from torch import Tensor

from fedjoint.server.steps import Steps
from fedjoint.server.strategy import JointStrategy, circumstances
from fedjoint.server.updates import Updates


def as_before(strategy: JointStrategy, names: Iterable[str] | None = None) -> bool:
    """Say whether the tasks are those that ``state["tasks"]`` tells, where it tells any.

    Args:
        strategy: whose state it is.
        names: of the tasks; None: those that the run has now, and as before outside a run.
    """
    known = circumstances(strategy)
    if names is None and known is None:
        return True
    now = _numbers(known.rising if names is None and known else names or ())
    return "tasks" not in strategy.state or torch.equal(strategy.state["tasks"], now)


def begin_anew(strategy: JointStrategy, updates: Updates) -> Steps | None:
    """Forget everything where the tasks have changed, and go on from backbone 0; else return None.

    Args:
        strategy: its state is emptied, and told of the tasks.
        updates: of clients that received backbone 0, if the tasks have changed.
    """
    changed = not as_before(strategy, updates.task_names)
    if changed:
        strategy.state.clear()
    strategy.state["tasks"] = _numbers(updates.task_names)
    return Steps(torch.tensor([0]), updates.means()[:1]) if changed else None


def most_of(group: Tensor, tasks: Tensor) -> Tensor:
    """``[n]`` int64, the ``group`` ``[T]`` with most of each client's ``tasks`` ``[n, T]``."""
    return (tasks.long() @ torch.nn.functional.one_hot(group)).argmax(1)


def _numbers(names: Iterable[str]) -> Tensor:
    """``[tasks]`` int64, what stands for the names in a state, which holds tensors alone."""
    return torch.tensor([int.from_bytes(sha256(n.encode()).digest()[:7]) for n in names])
