"""Merging, part by part: what all clients share, and what only those of one group do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.model.parts import Part, Parts
from fedjoint.server.heard import checked_hear
from fedjoint.server.part import Part as Reply
from fedjoint.server.population import Population
from fedjoint.server.stacking import about_parameters, stacked
from fedjoint.server.strategy import (
    JointStrategy,
    checked_merge,
    checked_report,
    checked_sent,
    circumstances,
    make_strategy,
)
from fedjoint.server.updates import Updates

Tensors = dict[str, Tensor]

#: Stands for all parts in the names of what is saved; no part is called so.
_ALL = "*"


class Merging:
    """The strategies of a run: where clients are in groups, one instance for each part.

    A strategy sees a part as if it were the whole backbone: a row for each client that has it, no
    zeros for those that do not, and state of its own.

    Args:
        strategy: of the run.
        config: its configuration.

    Attributes:
        of: part -> its strategy.
    """

    def __init__(self, strategy: JointStrategy, config: Config) -> None:
        self._strategy, self._config = strategy, config
        self.parts = Parts({})
        self.of: dict[str, JointStrategy] = {}

    def divide(self, parts: Parts) -> None:
        """Take the parts that there are.

        Raises:
            UserError: the strategy cannot merge a client's backbone in parts.
        """
        self.parts = parts
        if len(parts.parts) <= 1:
            self.of = {part.name: self._strategy for part in parts.parts}
            return
        several = any(len(parts.parts_of(group)) > 1 for group in parts.groups)
        if several and not self._strategy.by_part:
            raise UserError(
                f"strategy {self._config.strategy.name} merges whole backbones alone, and "
                "model.common divides those of a group: leave model.common out, or take another "
                "strategy"
            )
        self.of = {part.name: make_strategy(self._config) for part in parts.parts}

    def _every(self) -> dict[str, JointStrategy]:
        """Return all strategies: of parts, and the run's own where that merges no part itself."""
        own = any(strategy is self._strategy for strategy in self.of.values())
        return self.of if own else {**self.of, _ALL: self._strategy}

    def members(self, part: Part, people: Population) -> np.ndarray:
        """``[n]`` bool, which of all clients have a part."""
        names = list(self.parts.groups)
        return np.isin(people.group, [names.index(group) for group in part.groups])

    def know(self, people: Population) -> None:
        """Tell every strategy whose updates it may see."""
        able = people.sizes > 0
        seen = {part.name: able & self.members(part, people) for part in self.parts.parts}
        for name, strategy in self._every().items():
            known = circumstances(strategy)
            assert known is not None, "made by make_strategy"
            known.clients = people.ids[seen.get(name, able)]

    @property
    def state(self) -> dict[str, Tensor]:
        """What the strategies remember, by part where there are groups."""
        return {
            _key(part, name): tensor
            for part, strategy in self._every().items()
            for name, tensor in strategy.state.items()
        }

    @state.setter
    def state(self, saved: Mapping[str, Tensor]) -> None:
        for part, strategy in self._every().items():
            start = _key(part, "")
            strategy.state = {
                n.removeprefix(start): t for n, t in saved.items() if n.startswith(start)
            }

    def clear_reports(self) -> None:
        """Forget what strategies reported of the round before."""
        for strategy in self._every().values():
            strategy.report = {}

    def report(self) -> dict[str, float]:
        """Return what the strategies report, by part where there are groups.

        Raises:
            UserError: a report is no dict of numbers.
        """
        return {
            _key(part, name): value
            for part, strategy in self._every().items()
            for name, value in checked_report(strategy).items()
        }

    def parameters(self, part: Part, whole: Tensor) -> Tensor:
        """``[P]``, a copy of a part's parameters: plug-ins may do to it what they like.

        Args:
            part: the part.
            whole: the backbone of all groups.
        """
        named = self.parts.of(part.groups[0], self.parts.layout.views(whole))
        return part.layout.parameters.flat(named)

    def broadcast(self, group: str, whole: Tensor, round: int) -> dict[str, Tensor]:
        """Return what the strategies send to the clients of a group.

        What has a number for each parameter last is joined over the group's parts, in the order of
        the client's own; anything else has to be the same for all of them.

        Raises:
            UserError: a broadcast fails, or the parts' do not go together.
        """
        told = checked_sent(self._strategy, round, "tell")
        sent = [
            (
                part,
                checked_sent(self.of[part.name], round, "broadcast", self.parameters(part, whole)),
            )
            for part in self.parts.parts_of(group)
        ]
        if len(sent) == 1:
            return {**sent[0][1], **told}
        names = {name for _, extra in sent for name in extra}
        layout = self.parts.groups[group].parameters
        try:
            return {name: _joined(sent, name, layout) for name in sorted(names)} | told
        except (KeyError, RuntimeError):
            raise UserError(
                f"round {round}: strategy {self._config.strategy.name} sends other tensors for "
                "one part of a backbone than for another: leave model.common out, or take another "
                "strategy"
            ) from None

    def merge(
        self, updates: Mapping[str, Updates], masses: Mapping[str, float]
    ) -> dict[str, tuple[Updates, Tensor]]:
        """Merge every part that a client has trained.

        Args:
            updates: group -> the updates of its clients.
            masses: group -> the weight that they have in all.

        Returns:
            part -> what was merged, and the ``[P]`` step.

        Raises:
            UserError: a merge fails.
            MergeError: a strategy is wrong in itself.
        """
        merged = {}
        for part in self.parts.parts:
            if any(group in updates for group in part.groups):
                own = stacked(part, updates, masses)
                merged[part.name] = own, self._step(part, own)
        return merged

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Give all strategies back the state that they had where anything inside fails."""
        every = self._every()
        # Cloned, as a merge may change tensors in place.
        before = {
            part: {name: value.clone() for name, value in strategy.state.items()}
            for part, strategy in every.items()
        }
        try:
            yield
        except UserError:
            for part, strategy in every.items():
                strategy.state = before[part]
            raise

    def hear(self, parts: Sequence[Reply]) -> None:
        """Let the run's strategy hear what clients of all groups told it.

        Raises:
            UserError: see :func:`fedjoint.server.heard.checked_hear`.
        """
        checked_hear(self._strategy, parts)

    def _step(self, part: Part, updates: Updates) -> Tensor:
        try:
            return checked_merge(self.of[part.name], updates)
        except UserError as error:
            if len(self.of) == 1:
                raise
            raise type(error)(f"part {part.name!r}: {error}") from error

    def whole(self, steps: Mapping[str, Tensor]) -> Tensor:
        """Return the step of the backbone of all groups.

        Args:
            steps: part -> ``[P + B]``; the others stay as they are.
        """
        named = {n: torch.zeros(shape) for n, shape in self.parts.layout.shapes.items()}
        for part in self.parts.parts:
            if part.name in steps:
                views = part.layout.views(steps[part.name])
                named |= {self.parts.key(part.groups[0], n): step for n, step in views.items()}
        return self.parts.layout.flat(named)


def _key(part: str, name: str) -> str:
    return f"{part}/{name}" if part else name


def _joined(sent: Sequence[tuple[Part, Tensors]], name: str, layout: Layout) -> Tensor:
    """Return a tensor of several parts' broadcasts as the group's clients receive it."""
    found = [(part.layout.parameters, extra[name]) for part, extra in sent]
    if all(about_parameters(tensor, own) for own, tensor in found):
        views: Tensors = {}
        for own, tensor in found:
            lead = tensor.shape[:-1]
            views |= {n: view.reshape(*lead, -1) for n, view in own.views(tensor).items()}
        return torch.cat([views[n] for n in layout.shapes], -1)
    first, *others = (tensor for _, tensor in found)
    if not all(torch.equal(first, other) for other in others):
        raise KeyError(name)
    return first
