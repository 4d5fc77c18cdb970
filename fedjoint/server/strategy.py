"""The base of every strategy, which asks a plug-in only to merge."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError, said
from fedjoint.options import make_plugin
from fedjoint.server.candidates import (
    Budget,
    Candidates,
    checked_budget,
    checked_selection,
)
from fedjoint.server.steps import MergeError, NotFiniteError, Steps, checked_steps
from fedjoint.server.updates import Updates
from fedjoint.training.method import LocalMethod, make_method

log = logging.getLogger("fedjoint.server.strategy")


class JointStrategy(ABC):
    """Base class of every strategy. A plug-in implements :meth:`merge`.

    A strategy carries what a merge needs and nothing else: the round is run by
    :func:`fedjoint.server.round.run_round`.

    There is one backbone, unless :meth:`first_backbones` or :meth:`merge` says otherwise: then
    there are K, :meth:`receives` says who receives which, and clients get no other. BatchNorm's
    statistics are everyone's.

    Attributes:
        per_client: whether :meth:`merge` needs one row per client. Where it only uses
            ``updates.mean()`` and ``updates.by_task()``, say False: with many clients, the
            updates are then summed where they are made (there is one row, a mean, for all clients
            with the same tasks and backbone, for which both stay right), and memory does not
            grow with the clients.
        robust: whether some of the clients may send anything. Clients then weigh alike unless
            ``strategy.weight_by`` says otherwise, as sizes are what they claim; and the shared
            buffers, which no merge sees, move by their median.
        tasks_apart: whether ``updates.by_task()`` is to tell the tasks of one client apart. A
            client with T tasks then computes the gradient of each before it trains, and sends T
            times as much (see :mod:`fedjoint.training.deviations`); others send nothing more.
        by_part: whether a backbone may be merged in parts, each by an instance of its own, where
            groups of clients have only a part of it in common (``model.common``).
        method: the local method that clients run, by registered name. One other than ``joint`` is
            part of the strategy: ``local.method`` may not replace it.
        method_options: options of the local method.
        omits: in a few words, what of the paper that it is named after is left out.
        state: what the strategy remembers between rounds, by name; saved in checkpoints. A merge
            may change it in place: where the merge fails, it is what it was before.
        report: numbers of the strategy's own, by name, for the round's record; emptied before
            every round.
    """

    per_client: bool = True
    robust: ClassVar[bool] = False
    tasks_apart: bool = False
    by_part: ClassVar[bool] = True
    method: ClassVar[str] = "joint"
    omits: ClassVar[str] = ""

    def __init__(self) -> None:
        self.method_options: dict[str, float | int | str] = {}
        self.state: dict[str, Tensor] = {}
        self.report: dict[str, float] = {}

    def check_config(self, config: Config, method: LocalMethod) -> None:  # noqa: B027 - may be left
        """Refuse, before the first round, what the strategy is not made for.

        Args:
            config: the run's configuration.
            method: the local method that clients will run.

        Raises:
            UserError: the line says what is wrong and how to put it right.
        """

    def select(self, round: int, clients: Candidates) -> Sequence[int] | np.ndarray | None:
        """Return ids of the clients that train in ``round``; None: those of ``clients.drawn``.

        Args:
            round: the round, from 1.
            clients: who can train, and what is known of them.
        """
        return None

    def budget(self, round: int, clients: Candidates) -> Budget | None:
        """Return the steps and the rates of the clients that train; None: as configured.

        Args:
            round: the round, from 1.
            clients: those that train.
        """
        return None

    def broadcast(self, backbone: Tensor) -> dict[str, Tensor]:
        """Return further tensors for the clients' method (say, a control variate ``[P]``).

        Args:
            backbone: ``[P]``, the parameters that the clients will receive.
        """
        return {}

    def hear(self, told: Mapping[str, Tensor]) -> None:  # noqa: B027 - may be left
        """Remember in the state what clients of all groups told, before anything is merged.

        Args:
            told: name -> ``[clients, ...]``, by client id, what the local method sent under
                ``heard.<name>``; zeros for the clients of a node that sent none.
        """

    def tell(self) -> dict[str, Tensor]:
        """Return further tensors for the method of the clients of all groups."""
        return {}

    def first_backbones(self, backbone: Tensor) -> Tensor:
        """Return the ``[K, P]`` backbones that the first round starts with; by default the one.

        Args:
            backbone: ``[P]``, that of the configured model.
        """
        return backbone[None]

    def receives(self, round: int, clients: Tensor, tasks: Tensor) -> Tensor | None:
        """Return which of the K backbones each of some clients receives; asked where K > 1.

        Args:
            round: the round, before the clients train and again before they are evaluated.
            clients: ``[n]`` int64, their ids.
            tasks: ``[n, tasks]`` bool, what they train.

        Returns:
            ``[n]`` int64, from 0 and below K; -1: the client is sent all, and takes the one of the
            lowest loss on its training data. None: all choose so.
        """
        return None

    @abstractmethod
    def merge(self, updates: Updates) -> Tensor | Steps:
        """Merge the updates of a round into the ``[P]`` step of the backbone.

        ``updates`` is to be read: a merge that writes to it is refused, as what is computed of
        the round afterwards would be wrong.

        Returns:
            Where there are K > 1 backbones, ``[K, P]`` steps, one of each; or :class:`Steps`, of
            any number of backbones, from 1.
        """


@dataclass
class Circumstances:
    """The run that a strategy merges in.

    Attributes:
        config: its configuration.
        method: the local method that its clients run.
        rising: task -> whether a higher value of its metric is better.
        clients: ``[n]`` int64, ids of the clients with examples that the nodes have named so far.
        traced: the reasons of which a traceback was logged.
    """

    config: Config
    method: LocalMethod
    clients: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rising: dict[str, bool] = field(default_factory=dict)
    traced: set[str] = field(default_factory=set)


# Not an attribute of the strategy: a plug-in may have any of that name.
_CIRCUMSTANCES = "_JointStrategy__circumstances"


def circumstances(strategy: JointStrategy) -> Circumstances | None:
    """Return the run that ``strategy`` merges in; None where it merges by hand."""
    return vars(strategy).get(_CIRCUMSTANCES)


def local_method(strategy: JointStrategy, config: Config) -> tuple[str, dict[str, Any]]:
    """Return name and options of the local method that clients run."""
    local = config.local
    if local.method:
        return local.method, local.options
    return strategy.method, strategy.method_options


def make_strategy(config: Config) -> JointStrategy:
    """Return the configured strategy, once it and the local method are known to be in order.

    Raises:
        UserError: a name or an option is wrong, of the strategy or of the local method; or the
            two, or what else is configured, do not go together.
    """
    name, local = config.strategy.name, config.local
    strategy = make_plugin("strategies", name, config.strategy.options, JointStrategy)
    if not isinstance(getattr(strategy, "state", None), dict):
        raise UserError(f"strategy {name}: it has no state: call super().__init__() in __init__")
    check_tensors(f"strategy {type(strategy).__name__}: state", strategy.state)
    if local.method and strategy.method != "joint":
        raise UserError(
            f"local.method = {local.method!r}: strategy {name} is not itself without its own local "
            f"method, {strategy.method}; leave local.method out (options of {strategy.method} go "
            "into strategy.options), or set strategy.name = 'fedavg'"
        )
    try:
        method = make_method(*local_method(strategy, config))
        method.check_config(config)
    except UserError as error:
        raise UserError(f"{'local.options: ' if local.method else ''}{error}") from None
    if local.method and method.half_of:
        raise UserError(
            f"local.method = {local.method!r} is one half of strategy {method.half_of}: set "
            f"strategy.name = {method.half_of!r}, and leave local.method out"
        )
    strategy.check_config(config, method)
    vars(strategy)[_CIRCUMSTANCES] = Circumstances(config, method)
    return strategy


def chooses(strategy: JointStrategy) -> bool:
    """Return whether ``strategy`` chooses clients, or gives them budgets."""
    own, base = type(strategy), JointStrategy
    return own.select is not base.select or own.budget is not base.budget


def checked_choice(
    strategy: JointStrategy, round: int, clients: Candidates
) -> tuple[np.ndarray, Budget]:
    """Return ids ``[n]`` of the clients that train, ascending, and the budget of each.

    Raises:
        UserError: the strategy's ``select`` or ``budget`` fails, or returns what it may not.
    """
    name = type(strategy).__name__
    try:
        chosen = strategy.select(round, clients)
        ids = clients.drawn if chosen is None else checked_selection(name, chosen, clients)
        return ids, checked_budget(name, strategy.budget(round, clients.only(ids)), len(ids))
    except UserError as error:
        raise UserError(f"round {round}: {error}") from None
    except Exception as error:  # a plug-in may raise anything
        log.exception("the choice of clients failed")
        raise UserError(f"round {round}: {name} fails to choose clients: {said(error)}") from error


def checked_report(strategy: JointStrategy) -> dict[str, float]:
    """Return the numbers that the strategy reports.

    Raises:
        UserError: its report is no dict of numbers by name.
    """
    name, report = type(strategy).__name__, strategy.report
    if not isinstance(report, dict):
        raise UserError(f"{name}: report is {type(report).__name__}, not a dict of numbers")
    numbers = {}
    for key, value in report.items():
        try:
            numbers[str(key)] = float(value)
        except (TypeError, ValueError, OverflowError):
            what = type(value).__name__
            raise UserError(f"{name}: report[{key!r}] is {what}, not a number") from None
    return numbers


def checked_sent(
    strategy: JointStrategy, round: int, hook: Literal["broadcast", "tell"], *given: Tensor
) -> dict[str, Tensor]:
    """Return what ``strategy`` sends to clients, which a round cannot do without.

    Args:
        strategy: the strategy.
        round: the round.
        hook: the method that says what.
        given: its arguments; copies, as a plug-in may change them.

    Raises:
        UserError: it fails, or what it returns or leaves as state is no dict of finite tensors.
    """
    try:
        sent = getattr(strategy, hook)(*given)
        if not isinstance(sent, dict):
            raise UserError(f"it returned {type(sent).__name__}, not a dict of tensors")
        check_tensors("what it returned", sent)
        check_tensors("state", strategy.state)
    except Exception as error:  # a plug-in may raise anything
        if not isinstance(error, UserError):
            log.exception("%s failed", hook)
        raise UserError(f"round {round}: {type(strategy).__name__}.{hook}: {error}") from error
    return sent


def checked_merge(strategy: JointStrategy, updates: Updates) -> Steps:
    """Return the float32 steps of ``strategy``; where it fails, its state may be anything.

    Raises:
        UserError: the merge refuses the updates.
        NotFiniteError: its step, or its state, is not finite.
        MergeError: it fails, returns or leaves as state what it may not, or changes the updates.
    """
    versions = _versions(updates)
    try:
        steps = checked_steps(strategy.merge(updates), updates.backbones)
        if not torch.isfinite(steps.steps).all():
            raise NotFiniteError("merge returned a step that is not finite")
        check_tensors("state", strategy.state)
        for name, version in _versions(updates).items():
            if version != versions[name]:
                raise MergeError(f"merge changed updates.{name} in place; change a copy of it")
    except Exception as error:  # a plug-in may raise anything
        name = type(strategy).__name__
        if isinstance(error, UserError):
            raise type(error)(f"{name}: {error}") from error
        if isinstance(error, ValueError):  # as a rule refuses what it is given
            raise UserError(f"{name}: {error}") from error
        why = f"{name}: merge fails: {said(error)}"
        known = circumstances(strategy)
        if known is None or why not in known.traced:
            log.exception("merge failed")
        if known is not None:
            known.traced.add(why)
        raise MergeError(why) from error
    return steps


def check_tensors(what: str, named: Mapping[str, Any]) -> None:
    """Refuse values that are no tensors, or not finite.

    Args:
        what: holds them, for the error.
        named: the values.

    Raises:
        MergeError: one is no tensor.
        NotFiniteError: one is not finite.
    """
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise MergeError(f"{what}[{name!r}] is {type(value).__name__}, not a tensor")
        if not torch.isfinite(value).all():
            raise NotFiniteError(f"{what}[{name!r}] is not finite")


def _versions(updates: Updates) -> dict[str, int]:
    """Return how often each of the tensors that diagnostics read was written to."""
    read = {name: getattr(updates, name) for name in ("matrix", "weights", "clients", "tasks")}
    if updates.deviations is not None:
        read |= {f"deviations.{name}": tensor for name, tensor in vars(updates.deviations).items()}
    return {name: tensor._version for name, tensor in read.items()}
