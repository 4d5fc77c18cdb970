"""How one client weighs the losses of its tasks.

A task without a label in a minibatch has no part in its loss: its weight and what its rule
remembers stay as they are, and the other tasks are compared with one another alone. So does a task
without a label in a round. In the papers every example has all labels.

What a rule remembers is private state of the client, ``[clients, ...]`` tensors under
``balance.``; it persists with the heads and never travels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from fedjoint.config.schema import BalanceConfig
from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.tasks import Task
from fedjoint.options import make_plugin

Tensors = dict[str, Tensor]


class Balance:
    """Base class of the rules, and the rule by which all tasks weigh the same: ``sum_t loss_t``.

    Options are the arguments of ``__init__`` after ``tasks``. The rule runs under
    ``torch.func.vmap``, for all clients at once.

    Args:
        tasks: the client's.

    Attributes:
        separate: whether the rule needs the gradient of every task on its own.
        each_step: whether the rule learns after every step, though not from such gradients.
        resolves: whether the rule combines the tasks' gradients of the backbone by their inner
            products, see :meth:`resolve`; it is ``separate``, then.
        trained: names of the state that the optimiser trains.
        omits: in a few words, what of the paper that it is named after is left out.
    """

    separate: ClassVar[bool] = False
    each_step: ClassVar[bool] = False
    resolves: ClassVar[bool] = False
    trained: ClassVar[tuple[str, ...]] = ()
    omits: ClassVar[str] = ""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)

    def check_tasks(self, known: Sequence[str]) -> None:
        """Refuse options that do not fit the run's tasks.

        Args:
            known: names of all tasks, those of other clients included.

        Raises:
            UserError: the line names the option.
        """

    def private(self) -> Tensors:
        """Return one client's fresh state."""
        return {}

    def weights(self, state: Tensors) -> Tensor:
        """Return the ``[tasks]`` weights of one client, from its state."""
        return torch.ones(len(self.tasks))

    def total(self, losses: Tensor, weights: Tensor, state: Tensors, known: Tensor) -> Tensor:
        """Combine one client's losses into what it minimises.

        Args:
            losses: ``[tasks]``, zero where the minibatch had no label of the task.
            weights: ``[tasks]``, see :meth:`weights`.
            state: the client's state.
            known: ``[tasks]``, how many labels the minibatch had.
        """
        return (weights * losses).sum()

    def resolve(self, gram: Tensor) -> Tensor:
        """Return the ``[tasks]`` coefficients of the tasks' gradients of one client's backbone.

        Heads are trained by their own tasks' gradients, whatever these are. The numbers may depend
        on the minibatch, so the rule's course must not: it runs under ``torch.func.vmap``.

        Args:
            gram: ``[tasks, tasks]`` inner products of the gradients of the weighted losses, zero
                where the minibatch had no label of the task.
        """
        return torch.ones_like(gram.diagonal())

    def after_step(self, norms: Tensor | None, losses: Tensor, state: Tensors) -> None:
        """Learn from a step; only called for rules that are ``separate`` or have ``each_step``.

        Args:
            norms: ``[clients, tasks]`` lengths of the tasks' gradients of the backbone; None
                unless the rule is ``separate``.
            losses: ``[clients, tasks]``, NaN where the minibatch had no label of the task.
            state: the clients' state, changed in place.
        """

    def after_round(self, losses: Tensor, state: Tensors) -> None:
        """Learn from a round; state changes in place.

        Args:
            losses: ``[clients, tasks]`` mean losses, NaN where the round had no label of the task.
            state: the clients' state.
        """


def make_balance(config: BalanceConfig, tasks: Sequence[Task], known: Sequence[str]) -> Balance:
    """Return the rule for a client with ``tasks``; ``known`` are the names of all tasks.

    Raises:
        UserError: there is no such rule, or an option is wrong.
    """
    rule = make_plugin("balances", config.name, config.options, Balance, tasks)
    rule.check_tasks(known)
    _try(rule, f"balance {config.name}", everything=len(tasks) == len(known))
    return rule


def _try(rule: Balance, what: str, *, everything: bool) -> None:
    """Make sure that a rule's weights of a client's first step can weigh its losses.

    Args:
        rule: the rule.
        what: it is, for errors.
        everything: whether its client has all tasks.

    Raises:
        UserError: they cannot.
    """
    try:
        weights = rule.weights(rule.private())
    except ANYTHING as error:  # a plug-in may raise anything
        raise UserError(f"{what}: weights fails: {said(error)}") from error
    count = len(rule.tasks)
    if not isinstance(weights, Tensor) or weights.shape != (count,):
        has = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise UserError(f"{what}: weights returns {has}: return a tensor of shape ({count},)")
    if not weights.isfinite().all() or (weights < 0).any():
        raise UserError(f"{what}: weights returns {weights.tolist()}: give finite numbers from 0")
    if everything and not weights.any():
        raise UserError(f"{what}: all weights are 0, and nothing would be trained; raise one")
