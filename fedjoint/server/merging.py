"""Merging, part by part: what all clients share, and what only those of one group do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.model.parts import Part, Parts
from fedjoint.model.tasks import Task
from fedjoint.server.backbones import checked_first, checked_receives
from fedjoint.server.heard import checked_hear
from fedjoint.server.part import Part as Reply
from fedjoint.server.population import Population
from fedjoint.server.stacking import about_parameters, stacked
from fedjoint.server.steps import Steps
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
        backbones: part -> ``[K, P]``, where there are several, K > 1.
    """

    def __init__(self, strategy: JointStrategy, config: Config) -> None:
        self._strategy, self._config = strategy, config
        self.parts = Parts({})
        self.of: dict[str, JointStrategy] = {}
        self.backbones: Tensors = {}

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

    def begin(self, whole: Tensor) -> None:
        """Take the backbones that the first round starts with.

        Args:
            whole: the configured backbone of all groups.

        Raises:
            UserError: a strategy's are wrong.
        """
        for part in self.parts.parts:
            found = checked_first(self.of[part.name], self.parameters(part, whole))
            if len(found) > 1:
                self.backbones[part.name] = found

    @property
    def named(self) -> Tensors:
        """The backbones where there are several: tensor -> ``[K, ...]``, as all groups call it."""
        return {
            self.parts.key(part.groups[0], name): view.contiguous()
            for part in self.parts.parts
            if part.name in self.backbones
            for name, view in part.layout.parameters.views(self.backbones[part.name]).items()
        }

    @named.setter
    def named(self, saved: Mapping[str, Tensor]) -> None:
        self.backbones = {}
        for part in self.parts.parts:
            names = [self.parts.key(part.groups[0], name) for name in part.layout.parameters.shapes]
            if names and names[0] in saved:
                rows = [saved[name].flatten(1) for name in names]
                self.backbones[part.name] = torch.cat(rows, 1)

    def count(self, group: str) -> int:
        """Return how many backbones the clients of a group may receive.

        Raises:
            UserError: there are other numbers of one part of theirs than of another.
        """
        several = [self.backbones.get(part.name) for part in self.parts.parts_of(group)]
        counts = {1 if own is None else len(own) for own in several}
        if len(counts) > 1:
            raise self._unlike("has other backbones")
        return max(counts, default=1)

    def all_of(self, group: str, whole: Tensor) -> Tensor:
        """``[K, P + B]``, the backbones of a group's clients, with the buffers of all.

        Args:
            group: its name.
            whole: the backbone of all groups.
        """
        count, layout = self.count(group), self.parts.groups[group]
        named = self.parts.of(group, self.parts.layout.views(whole))
        named = {name: tensor.expand(count, *tensor.shape) for name, tensor in named.items()}
        for part in self.parts.parts_of(group):
            if part.name in self.backbones:
                named |= part.layout.parameters.views(self.backbones[part.name])
        return torch.cat([named[name].reshape(count, -1) for name in layout.shapes], 1)

    def receives(
        self, group: str, round: int, clients: np.ndarray, tasks: np.ndarray
    ) -> np.ndarray:
        """``[n]`` int64, which backbone clients of a group receive; -1: they choose.

        Args:
            group: its name.
            round: the round.
            clients: ``[n]`` ids.
            tasks: ``[n, tasks]`` bool.

        Raises:
            UserError: the strategies' answers are wrong, or not the same for all parts.
        """
        count = self.count(group)
        first, *others = (
            checked_receives(self.of[part.name], count, round, clients, tasks)
            for part in self.parts.parts_of(group)
        )
        if not all(np.array_equal(first, other) for other in others):
            raise self._unlike("sends clients another backbone")
        return first

    def _unlike(self, does: str) -> UserError:
        return UserError(
            f"strategy {self._config.strategy.name} {does} of one part than of another: leave "
            "model.common out, or take another strategy"
        )

    def _every(self) -> dict[str, JointStrategy]:
        """Return all strategies: of parts, and the run's own where that merges no part itself."""
        own = any(strategy is self._strategy for strategy in self.of.values())
        return self.of if own else {**self.of, _ALL: self._strategy}

    def members(self, part: Part, people: Population) -> np.ndarray:
        """``[n]`` bool, which of all clients have a part."""
        names = list(self.parts.groups)
        return np.isin(people.group, [names.index(group) for group in part.groups])

    def know(self, people: Population, tasks: Sequence[Task]) -> None:
        """Tell every strategy whose updates it may see, and which metrics should rise."""
        able = people.sizes > 0
        seen = {part.name: able & self.members(part, people) for part in self.parts.parts}
        for name, strategy in self._every().items():
            known = circumstances(strategy)
            assert known is not None, "made by make_strategy"
            known.clients = people.ids[seen.get(name, able)]
            known.rising = {task.name: task.metric_fn.higher_is_better for task in tasks}

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
        kept = {_key(part, "backbones"): float(len(own)) for part, own in self.backbones.items()}
        return kept | {
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
                if part.name in self.backbones:
                    own = replace(own, backbones=self.backbones[part.name])
                merged[part.name] = own, self._move(part, own, self._steps(part, own))
        return merged

    def _move(self, part: Part, updates: Updates, found: Steps) -> Tensor:
        """Move a part's backbones; return the ``[P]`` step of their weighted mean."""
        if len(found.of) == len(updates.backbones) == 1:
            return found.steps[0]
        moved = updates.backbones[found.of] + found.steps
        self.backbones.pop(part.name, None)
        if len(moved) > 1:
            self.backbones[part.name] = moved
        # By the clients that are where each comes from, as far as anybody knows yet.
        mass = torch.zeros(len(updates.backbones)).to(updates.weights)
        mass.index_add_(0, updates.received, updates.weights)
        share = mass[found.of] / torch.bincount(found.of, minlength=len(mass))[found.of]
        if not share.sum() > 0:  # nobody who trained is in any that is left
            share = torch.ones_like(share)
        return share @ moved / share.sum() - updates.backbone

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Give all strategies back the state that they had where anything inside fails."""
        every = self._every()
        # Cloned, as a merge may change tensors in place.
        before = {
            part: {name: value.clone() for name, value in strategy.state.items()}
            for part, strategy in every.items()
        }
        backbones = dict(self.backbones)  # which nobody changes in place
        try:
            yield
        except UserError:
            self.backbones = backbones
            for part, strategy in every.items():
                strategy.state = before[part]
            raise

    def hear(self, parts: Sequence[Reply]) -> None:
        """Let the run's strategy hear what clients of all groups told it.

        Raises:
            UserError: see :func:`fedjoint.server.heard.checked_hear`.
        """
        checked_hear(self._strategy, parts)

    def _steps(self, part: Part, updates: Updates) -> Steps:
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
