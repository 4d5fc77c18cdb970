"""What the server of a run carries from one round to the next."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.model.layout import Layout
from fedjoint.protocol.arrays import to_record
from fedjoint.protocol.requests import (
    EVALUATE,
    PERSIST,
    TRAIN,
    Asked,
    EvaluateRequest,
    Header,
    PersistRequest,
    TrainRequest,
)
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.record import Metrics
from fedjoint.server.best import Best
from fedjoint.server.callbacks import Callback
from fedjoint.server.exclusion import Exclusions
from fedjoint.server.merging import Merging
from fedjoint.server.pace import Pace
from fedjoint.server.plan import Plan
from fedjoint.server.reference import Reference
from fedjoint.server.refusals import Refusals
from fedjoint.server.roster import Roster, Seat
from fedjoint.server.strategy import (
    Circumstances,
    JointStrategy,
    circumstances,
    local_method,
)

_GRACE = 5.0  # seconds that a node's reply may take, beyond what its clients may


@dataclass
class Run:
    """A run, as its server has it.

    Attributes:
        config: its configuration.
        path: the run directory.
        id: the run's id.
        grid: reaches the nodes.
        strategy: chooses clients.
        merging: merges: with the same strategy, or one like it for each part of the backbone.
        roster: the nodes and their clients.
        callbacks: hear how the run goes.
        reference: independent training to compare with, where the configuration names any.
        generation: how often the run was resumed.
        resumed_from: the round of the checkpoint that it goes on from; 0: none.
        durable: the round of the newest checkpoint; 0: none.
        ledger: the last round of each client that was merged.
        backbone: the parameters of all groups of clients and, after them, the shared buffers.
        evaluation: split -> task -> metric, of the last evaluation; empty before the first.
        evaluated: the round that it was after.
        best: what the best round has; None where it is not kept.
        stopping: whether somebody asks the run to stop.
        before: the strategy's state as the round found it (of a deployed run).
        exclusions: who is not asked any more.
        paces: kind of request -> how long it may take.
        refusals: merges in a row that failed.
    """

    config: Config
    path: Path
    id: str
    grid: Grid
    strategy: JointStrategy
    roster: Roster
    callbacks: Sequence[Callback]
    reference: Reference | None
    generation: int
    resumed_from: int
    durable: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    backbone: Tensor = field(default_factory=lambda: torch.zeros(0))
    evaluation: Mapping[str, Metrics] = field(default_factory=dict)
    evaluated: int = 0
    best: Best | None = None
    stopping: Callable[[], bool] = lambda: False
    before: dict[str, Any] = field(default_factory=dict)
    exclusions: Exclusions = field(default_factory=Exclusions)
    paces: dict[str, Pace] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=Refusals)
    merging: Merging = field(init=False)

    def __post_init__(self) -> None:
        self.durable = self.resumed_from
        self.merging = Merging(self.strategy, self.config)

    @property
    def circumstances(self) -> Circumstances:
        """What the strategy may know of the run."""
        known = circumstances(self.strategy)
        assert known is not None, "made by make_strategy"
        return known

    @property
    def shares(self) -> bool:
        """Whether clients send updates."""
        return self.circumstances.method.shares

    def discover(self) -> None:
        """Find out who is there.

        Raises:
            UserError: see :meth:`fedjoint.server.roster.Roster.discover`.
        """
        self.roster.discover(self.grid, self.header(0))
        if not self.merging.of:
            self.merging.divide(self.roster.parts)
        self.merging.know(self.roster.people, self.roster.tasks)

    def of_group(self, group: str) -> dict[str, Tensor]:
        """Return a group's shared tensors, as its clients call them."""
        return self.roster.parts.of(group, self.roster.layout.views(self.backbone))

    def named(self) -> dict[str, Tensor]:
        """Return the backbone by name, in memory of its own."""
        return {n: t.clone() for n, t in self.roster.layout.views(self.backbone).items()}

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    def header(self, round: int, timeout: float | None = None) -> Header:
        """Return what every request says.

        Args:
            round: the round.
            timeout: seconds that the node has; None: the most.
        """
        method, options = local_method(self.strategy, self.config)
        return Header(
            run=str(self.path.resolve()),
            id=self.id,
            config=self._settings,
            round=round,
            generation=self.generation,
            resumed_from=self.resumed_from,
            durable=self.durable,
            method=method,
            method_options=dict(options),
            timeout=self.config.strategy.limit if timeout is None else timeout,
        )

    def _pace(self, kind: str) -> Pace:
        """Return how long requests of a kind may take."""
        new = Pace(self.config.strategy, measures=self.roster.deployed)
        return self.paces.setdefault(kind, new)

    def broadcast(self, round: int) -> dict[str, Broadcast]:
        """Return what every client of a group receives, by group.

        Raises:
            UserError: the strategy's broadcast fails.
        """
        sent = {}
        for group, layout in self.roster.parts.groups.items():
            extra = self.merging.broadcast(group, self.backbone, round)
            views = {n: t.contiguous() for n, t in self.of_group(group).items()}
            size = sum(t.nbytes for t in extra.values()) + 4 * layout.size * self.shares
            several = None
            if self.shares and self.merging.count(group) > 1:
                several = self.merging.all_of(group, self.backbone)
            sent[group] = Broadcast(to_record(views), to_record(extra), size, layout, several)
        return sent

    def train(self, plan: Plan, sent: Mapping[str, Broadcast]) -> Iterable[Message]:
        """Ask every node to train its share of ``plan``; return the replies as they arrive."""
        clients = {seat: len(share.clients) for seat, share in plan.asked.items()}
        pace = self._pace(TRAIN)
        header = self.header(plan.round, pace.seconds(max(clients.values(), default=1)))
        return self._send(
            TRAIN,
            pace,
            header.timeout,
            clients,
            {
                (node, group): TrainRequest(
                    header=header,
                    group=group,
                    backbone=sent[group].backbone_for(share),
                    broadcast=sent[group].extra,
                    asked=share,
                    rounds=self.ledger.of(share.clients),
                    sampled=plan.sampled((node, group)),
                    reduce=plan.reduce,
                    within=plan.within,
                    deviations=plan.deviations,
                ).pack()
                for (node, group), share in plan.asked.items()
            },
        )

    def evaluate(
        self, asked: Mapping[Seat, Asked], round: int, sent: Mapping[str, Broadcast]
    ) -> Iterable[Message]:
        """Ask every node to evaluate its share; return the replies as they arrive."""
        train = self.config.evaluate.train or round >= self.config.rounds
        clients = {seat: len(share.clients) for seat, share in asked.items()}
        pace = self._pace(f"{EVALUATE} with training examples" if train else EVALUATE)
        header = self.header(round, pace.seconds(max(clients.values(), default=1)))
        return self._send(
            EVALUATE,
            pace,
            header.timeout,
            clients,
            {
                (node, group): EvaluateRequest(
                    header=header,
                    group=group,
                    backbone=sent[group].backbone_for(share),
                    broadcast=sent[group].extra,
                    asked=share,
                    rounds=self.ledger.of(share.clients),
                    train=train,
                ).pack()
                for (node, group), share in asked.items()
            },
        )

    def persist(self, round: int, *, forget: bool) -> Iterable[Message]:
        """Ask every node to save private state; return the replies as they arrive."""
        kept = self.best.ledger if self.best else Ledger()
        content = PersistRequest(self.header(round), self.ledger, kept, forget).pack()
        contents = {(node, ""): content for node in self.roster.nodes}
        pace = self._pace(PERSIST)
        return self._send(PERSIST, pace, pace.seconds(1), dict.fromkeys(contents, 1), contents)

    def _send(
        self,
        kind: str,
        pace: Pace,
        seconds: float,
        clients: Mapping[Seat, int],
        contents: Mapping[Seat, RecordDict],
    ) -> Iterable[Message]:
        """Send messages, each about one group; a node answers its own one after the other.

        Args:
            kind: of the messages.
            pace: is told how long they took.
            seconds: that a node has for each.
            clients: how many each is about.
            contents: of each.
        """
        # The node keeps to the limit; a little later, it is the node that is lost.
        most = max(Counter(node for node, _ in contents).values(), default=1)
        timeout = 1.1 * most * seconds + _GRACE
        sent = [
            Message(content, node, kind, ttl=timeout, group_id=group)
            for (node, group), content in contents.items()
        ]
        began = time.monotonic()
        replies = self.grid.send_and_receive(sent, timeout=timeout)
        return _noted(replies, began, pace, seconds, clients)


def _noted(
    replies: Iterable[Message],
    began: float,
    pace: Pace,
    had: float,
    clients: Mapping[Seat, int],
) -> Iterator[Message]:
    """Yield replies as they arrive, and note then how long they took."""
    took = []
    for reply in replies:
        seat = reply.metadata.src_node_id, reply.metadata.group_id
        if not reply.has_error() and seat in clients:
            took.append((time.monotonic() - began, clients[seat]))
        yield reply
    pace.note(took, had)


@dataclass(frozen=True)
class Broadcast:
    """What every client of a group receives.

    Attributes:
        backbone: the shared tensors.
        extra: what else the strategy sends.
        size: bytes of both; of the second alone where clients keep their backbones.
        layout: of the shared tensors.
        several: ``[K, P + B]``, where clients receive different backbones; None: all the one.
    """

    backbone: ArrayRecord
    extra: ArrayRecord
    size: int
    layout: Layout
    several: Tensor | None = None
    _made: dict[bytes, ArrayRecord] = field(default_factory=dict)

    def backbone_for(self, asked: Asked) -> ArrayRecord:
        """Return the backbones that the clients of a share need; made once for shares alike."""
        if self.several is None or asked.backbones is None:
            return self.backbone
        key = asked.backbones.tobytes()
        if key not in self._made:
            stack = self.several[torch.from_numpy(asked.backbones)]
            self._made[key] = to_record(
                {name: view.contiguous() for name, view in self.layout.views(stack).items()}
            )
        return self._made[key]

    def bytes_for(self, asked: Asked) -> int:
        """Return how many bytes the clients of a share receive, as if each was on its own."""
        size = self.size * len(asked.clients)
        if self.several is None or asked.received is None:
            return size
        more = 4 * self.layout.parameters.size * (len(self.several) - 1)
        return size + more * int((asked.received < 0).sum())
