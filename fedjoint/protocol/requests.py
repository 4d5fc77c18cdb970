"""What the server asks of nodes: who they are, to train, to evaluate, to save; and what it tells.

Every request bears a :class:`Header`. Requests to train and to evaluate carry the backbone once,
whatever the number of clients, and say which clients work and which round of theirs counts. Heads
are in no message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from fedjoint.protocol import wire
from fedjoint.protocol.checks import Line, Number, Seconds, counts, shaped
from fedjoint.runs.ledger import Ledger

TRAIN, EVALUATE, QUERY, PERSIST = "train", "evaluate", "query", "query.persist"
TELL = "query.tell"


@dataclass(frozen=True)
class Header:
    """What every request says of its run.

    Attributes:
        run: path of the run directory on the server.
        id: the run's id.
        config: the run's configuration, as JSON has it.
        round: the round; 0 before the first.
        generation: how often the run was resumed.
        resumed_from: the round of the checkpoint that it goes on from; 0: none.
        durable: the round of the newest checkpoint; 0: none.
        method: the local method, by name or reference.
        method_options: its options.
        timeout: seconds that the node has.
    """

    run: str
    id: str
    config: dict[str, Any]
    round: Number
    generation: Number
    resumed_from: Number
    durable: Number
    method: str
    method_options: dict[str, Any]
    timeout: Seconds


@dataclass(frozen=True)
class Asked:
    """The share of one node in a round.

    Attributes:
        clients: ``[n]`` int64 ids, block by block.
        weights: ``[n]`` float64, not normalised.
        blocks: ``[b]`` int64, numbers of the blocks.
        sizes: ``[b]`` int64, clients in each.
        tasks: ``[n, tasks]`` bool, of the clients; the server keeps that to itself.
        steps: ``[n]`` int64, optimiser steps of each; None: as configured.
        rates: ``[n]`` float32, factors on the learning rate of each; None: one.
        declared: ``[n]`` int64, training examples that their nodes have said they have; the
            server keeps that to itself, too. None: unknown.
        held: ``[n, 3]`` int64, validation, test and central examples, alike.
        budget: ``[n]`` int64, optimiser steps that each may take, alike.
        received: ``[n]`` int64, which of the backbones that the node is sent is each client's; -1:
            the one of the lowest loss on its training data. None: there is only one.
        backbones: ``[k]`` int64, which of the run's backbones these are; the server keeps that to
            itself.
        bundles: ``[b]`` int64, alike for blocks in a row that form jobs together; None: none do.
    """

    clients: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray
    sizes: np.ndarray
    tasks: np.ndarray
    steps: np.ndarray | None = None
    rates: np.ndarray | None = None
    declared: np.ndarray | None = None
    held: np.ndarray | None = None
    budget: np.ndarray | None = None
    received: np.ndarray | None = None
    backbones: np.ndarray | None = None
    bundles: np.ndarray | None = None

    def at(self, order: np.ndarray) -> Asked:
        """Return the share with its clients in another order; their blocks stay as they were."""
        columns = ("clients", "weights", "tasks", "steps", "rates", "declared", "held", "budget")
        of = {name: getattr(self, name) for name in (*columns, "received")}
        return replace(self, **{n: v[order] for n, v in of.items() if v is not None})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what travels."""
        plan = {
            "clients": self.clients,
            "weights": self.weights,
            "blocks": self.blocks,
            "sizes": self.sizes,
        }
        names = ("steps", "rates", "received", "bundles")
        some = {name: getattr(self, name) for name in names}
        return plan | {name: array for name, array in some.items() if array is not None}

    @classmethod
    def read(cls, plan: Mapping[str, np.ndarray]) -> Asked:
        """Check and return :meth:`arrays`.

        Raises:
            UserError: an array is missing, or does not fit the others.
        """
        clients = counts(plan, "clients", len(plan.get("clients", ())))
        sizes = counts(plan, "sizes", len(plan.get("sizes", ())))
        weights = shaped(plan, "weights", clients.shape, "f")
        blocks = counts(plan, "blocks", len(sizes))
        if sizes.sum() != len(clients):
            raise wire.damaged("its blocks hold another number of clients than it names")
        return cls(
            clients,
            weights,
            blocks,
            sizes,
            np.zeros((len(clients), 0), bool),
            counts(plan, "steps", len(clients)) if "steps" in plan else None,
            shaped(plan, "rates", clients.shape, "f") if "rates" in plan else None,
            received=shaped(plan, "received", clients.shape, "i") if "received" in plan else None,
            bundles=counts(plan, "bundles", len(sizes)) if "bundles" in plan else None,
        )


@dataclass(frozen=True)
class _Query(Header):
    initial: bool


@dataclass(frozen=True)
class QueryRequest:
    """Asks a node who lives there.

    Attributes:
        header: see :class:`Header`.
        initial: whether the first backbone is wanted, too.
    """

    header: Header
    initial: bool

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        return wire.pack({**vars(self.header), "initial": self.initial})

    @classmethod
    def unpack(cls, message: Message) -> QueryRequest:
        """Return the request in ``message``.

        Raises:
            UserError: it is damaged.
        """
        found = wire.read(_Query, message)
        return cls(found, found.initial)


@dataclass(frozen=True)
class _Evaluate(Header):
    group: str
    train: bool


@dataclass(frozen=True)
class _Train(Header):
    group: str
    reduce: bool
    within: bool
    deviations: bool


@dataclass(frozen=True)
class TrainRequest:
    """Asks a node to train clients of one group, which have one architecture.

    Attributes:
        header: see :class:`Header`.
        group: the group's name; empty where all clients of the run have one architecture.
        backbone: the shared tensors, by name: on a node NumPy arrays, on the server a record of
            Flower's that is made once for all nodes. Of several backbones, ``asked.received``
            being there, each tensor is ``[k, ...]``, of those that the clients need.
        broadcast: what else the strategy sends, alike.
        asked: which clients.
        rounds: ``[n]`` int64, the round after which a client's private state counts; 0: none.
        sampled: ``[n]`` bool, whose updates are wanted one by one even where ``reduce`` is set.
        reduce: whether the reply holds a mean per block, and no row per client.
        within: whether the sampled clients are to compare their tasks with one another.
        deviations: whether clients with several tasks are to tell the tasks' updates apart, see
            :mod:`fedjoint.protocol.deviations`.
    """

    header: Header
    group: str
    backbone: Mapping[str, Any]
    broadcast: Mapping[str, Any]
    asked: Asked
    rounds: np.ndarray
    sampled: np.ndarray
    reduce: bool
    within: bool = False
    deviations: bool = False

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        plan = {**self.asked.arrays(), "rounds": self.rounds, "sampled": self.sampled}
        asks = {n: getattr(self, n) for n in ("group", "reduce", "within", "deviations")}
        return wire.pack(
            {**vars(self.header), **asks},
            backbone=self.backbone,
            broadcast=self.broadcast,
            plan=plan,
        )

    @classmethod
    def unpack(cls, message: Message) -> TrainRequest:
        """Return the request in ``message``.

        Raises:
            UserError: it is damaged.
        """
        found, plan = wire.read(_Train, message), wire.arrays(message, "plan")
        asked = Asked.read(plan)
        return cls(
            header=found,
            group=found.group,
            backbone=wire.arrays(message, "backbone"),
            broadcast=wire.arrays(message, "broadcast"),
            asked=asked,
            rounds=counts(plan, "rounds", len(asked.clients)),
            sampled=shaped(plan, "sampled", asked.clients.shape, "b"),
            reduce=found.reduce,
            within=found.within,
            deviations=found.deviations,
        )


def asks_for_means(message: Message) -> bool:
    """Say whether a request to train asks for means of blocks.

    Raises:
        UserError: it is damaged.
    """
    return wire.read(_Train, message).reduce


@dataclass(frozen=True)
class EvaluateRequest:
    """Asks a node to evaluate clients; see :class:`TrainRequest` for what else it holds.

    Attributes:
        train: whether on their training examples, too.
    """

    header: Header
    group: str
    backbone: Mapping[str, Any]
    broadcast: Mapping[str, Any]
    asked: Asked
    rounds: np.ndarray
    train: bool = False

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        return wire.pack(
            {**vars(self.header), "group": self.group, "train": self.train},
            backbone=self.backbone,
            broadcast=self.broadcast,
            plan={**self.asked.arrays(), "rounds": self.rounds},
        )

    @classmethod
    def unpack(cls, message: Message) -> EvaluateRequest:
        """Return the request in ``message``.

        Raises:
            UserError: it is damaged.
        """
        found, plan = wire.read(_Evaluate, message), wire.arrays(message, "plan")
        asked = Asked.read(plan)
        return cls(
            found,
            found.group,
            wire.arrays(message, "backbone"),
            wire.arrays(message, "broadcast"),
            asked,
            counts(plan, "rounds", len(asked.clients)),
            found.train,
        )


@dataclass(frozen=True)
class _Persist(Header):
    forget: bool


@dataclass(frozen=True)
class PersistRequest:
    """Asks a node to write all private state that counts to its store.

    Attributes:
        header: see :class:`Header`.
        ledger: which round of each client counts.
        kept: further rounds of clients whose state is to stay, those of the best round.
        forget: whether clients may be trained elsewhere from now on.
    """

    header: Header
    ledger: Ledger
    kept: Ledger
    forget: bool

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        said = {**vars(self.header), "forget": self.forget}
        return wire.pack(said, ledger=_arrays(self.ledger), kept=_arrays(self.kept))

    @classmethod
    def unpack(cls, message: Message) -> PersistRequest:
        """Return the request in ``message``.

        Raises:
            UserError: it is damaged.
        """
        found = wire.read(_Persist, message)
        ledger, kept = (_ledger(wire.arrays(message, name)) for name in ("ledger", "kept"))
        return cls(found, ledger, kept, found.forget)


@dataclass(frozen=True)
class _Tell(Header):
    text: Line


@dataclass(frozen=True)
class TellRequest:
    """Tells a node why the run leaves it out; nobody waits for the reply.

    Attributes:
        header: see :class:`Header`.
        text: what to say on its screen.
    """

    header: Header
    text: str

    def pack(self) -> RecordDict:
        """Return the content of the message."""
        return wire.pack({**vars(self.header), "text": self.text})

    @classmethod
    def unpack(cls, message: Message) -> TellRequest:
        """Return the request in ``message``.

        Raises:
            UserError: it is damaged.
        """
        found = wire.read(_Tell, message)
        return cls(found, found.text)


def _arrays(ledger: Ledger) -> dict[str, np.ndarray]:
    return {"clients": ledger.clients, "rounds": ledger.rounds}


def _ledger(arrays: Mapping[str, np.ndarray]) -> Ledger:
    clients = counts(arrays, "clients", len(arrays.get("clients", ())))
    return Ledger(clients, counts(arrays, "rounds", len(clients)))
