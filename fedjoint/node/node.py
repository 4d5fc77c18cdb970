"""A node: hosts clients, trains and evaluates the cohorts that the server asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from flwr.app import Message, RecordDict
from torch import Tensor

from fedjoint._util.threads import cpu_threads
from fedjoint.config.schema import Config
from fedjoint.errors import OpenError
from fedjoint.model.groups import naming
from fedjoint.model.layout import Layout
from fedjoint.node.held import count_held
from fedjoint.node.jobs import Jobs, Start, openly
from fedjoint.node.mods import Mods
from fedjoint.node.names import named
from fedjoint.node.outward import outward
from fedjoint.node.private import PrivateState
from fedjoint.node.rehearsal import check_told, rehearse
from fedjoint.node.room import Room, with_room
from fedjoint.node.sinks import make_sink
from fedjoint.node.store import StateStore
from fedjoint.node.witness import WatchedFederation
from fedjoint.problem import Problem
from fedjoint.protocol import wire
from fedjoint.protocol.arrays import to_tensor
from fedjoint.protocol.description import Description
from fedjoint.protocol.requests import (
    EVALUATE,
    PERSIST,
    QUERY,
    TRAIN,
    EvaluateRequest,
    Header,
    PersistRequest,
    QueryRequest,
    TrainRequest,
)
from fedjoint.training.method import LocalMethod, make_method
from fedjoint.training.trainer import Trainer

_LEAST = 5  # examples behind a statistic: the default of evaluate.min_examples on real machines


def best_device() -> torch.device:
    """Return the GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Node:
    """Answers the server's messages for the clients whose data it can reach.

    Args:
        problem: tasks, backbone and data.
        config: the run's configuration.
        store: keeps the clients' private state; None: memory does.
        clients: id -> position in ``problem.data`` of the clients that live here; None for a
            simulated node, which can play any client.
        write_through: write private state after every message, as the process may end.
        name: what people call the node.
        discreet: whether the data are the node's own, so that no error's text may leave it.
        mods: what updates pass before they are sent; None: nothing.
    """

    def __init__(
        self,
        problem: Problem,
        config: Config,
        store: StateStore | None,
        clients: Mapping[int, int] | None = None,
        write_through: bool = False,
        name: str = "",
        discreet: bool = False,
        mods: Mods | None = None,
    ):
        self.watched = WatchedFederation(problem.data, store, clients) if store else None
        if self.watched and problem.central is not None:
            self.watched.look_at_central(problem.central)
        self.problem = replace(problem, data=self.watched) if self.watched else problem
        self.config, self.name, self.store = config, name, store
        self.device = best_device()
        self.state = PrivateState(self.store, config.engine.cache_clients, self.device)
        self.places, self.write_through = clients, write_through
        self.generation, self.rehearsed = -1, False
        self.methods: dict[str, LocalMethod] = {}
        self.mods = mods
        self.rooms = self._rooms(outward if discreet else openly)

    def _rooms(self, tell: Callable[[BaseException], str]) -> dict[str, Room]:
        """Return what trains each group of the clients that live here."""
        problem, names = self.problem, self.problem.group_names
        problem.check_groups(self.config)
        here = list(range(len(problem.member)) if self.places is None else self.places.values())
        own = [names[place] for place in np.unique(problem.member[here]).tolist() if place >= 0]
        config, deployed = with_room(self.config, len(own)), self.places is not None
        least = config.evaluate.min_examples or (_LEAST if deployed else 1)
        rooms = {}
        for name in own:
            with naming(name):
                trainer = Trainer(problem.of(name), config, self.device)
            jobs = Jobs(trainer, self.state, self.places, tell)
            rooms[name] = Room(jobs, least, deployed=deployed, mods=self.mods)
        return rooms

    def handle(self, message: Message) -> RecordDict:
        """Answer one message.

        Raises:
            UserError: the message is damaged, or of another version.
        """
        with cpu_threads(self.config.engine.threads):
            return self._handle(message)

    def _handle(self, message: Message) -> RecordDict:
        kind = message.metadata.message_type
        if kind == TRAIN:
            if self.mods:
                self.mods.answer(message)
            return self.train(TrainRequest.unpack(message))
        if kind == EVALUATE:
            return self.evaluate(EvaluateRequest.unpack(message))
        if kind == QUERY:
            return self.query(QueryRequest.unpack(message))
        assert kind == PERSIST, "the ClientApp knows no other"
        return self.persist(PersistRequest.unpack(message))

    def query(self, request: QueryRequest) -> RecordDict:
        """Say who lives here: ids, sizes and tasks; and the initial backbone, where asked.

        Raises:
            UserError: no client here can be trained and evaluated.
        """
        data = self.problem.data
        if not self.rehearsed:
            told = {}
            for name, room in self.rooms.items():
                with naming(name):
                    told[name] = rehearse(room.trainer, self._method(request.header))
            check_told(told)
            self.rehearsed = True
        ids = rows = np.arange(len(data.sizes))
        if self.places is not None:
            ids, rows = (
                np.array(list(part), np.int64) for part in zip(*self.places.items(), strict=True)
            )
        columns, classes = named(self.problem)
        names, own = self.problem.group_names, list(self.rooms)
        places = {names.index(name): place for place, name in enumerate(own)}
        # Whoever has no task is in any group.
        member = np.array([places.get(place, 0) for place in self.problem.member[rows].tolist()])
        return Description(
            name=self.name,
            device=str(self.device),
            movable=self.places is None,
            tasks=[task.bare for task in self.problem.tasks],
            groups={n: room.describe(initial=request.initial) for n, room in self.rooms.items()},
            ids=ids,
            sizes=data.sizes[rows],
            held=self._held,
            mask=data.tasks[rows],
            member=member,
            columns=columns,
            classes=classes,
            metrics={t.name: [each.name for each in t.metrics] for t in self.problem.tasks},
        ).pack()

    @cached_property
    def _held(self) -> np.ndarray:
        """``[n, 3]`` int64, validation, test and central examples of the clients at home."""
        if self.places is None:
            return np.zeros((0, 3), np.int64)
        timeout = self.config.strategy.limit
        return count_held(self.problem, self.places.values(), timeout)

    def persist(self, request: PersistRequest) -> RecordDict:
        """Write all private state that counts to the store, and delete there what does not."""
        self.state.settle(request.ledger)
        self._flush()
        if request.forget:
            self.state.forget()
        if self.store:
            self.store.settle(request.ledger)
            self.store.prune(request.header.durable, request.kept)
        return wire.pack({})

    def train(self, request: TrainRequest) -> RecordDict:
        """Train the clients of a request.

        Raises:
            UserError: the request does not fit this node.
        """
        room = self._room(request)
        start = self._start(request, room)
        sink = make_sink(
            request,
            room.trainer.layout,
            self.device,
            shares=start.method.shares,
            compressed=self.config.strategy.compression.name != "none",
        )
        reply = room.training.run(request, start, sink)
        if self.write_through:
            self._flush()
        return reply.pack()

    def evaluate(self, request: EvaluateRequest) -> RecordDict:
        """Evaluate the clients of a request.

        Raises:
            UserError: the request does not fit this node.
        """
        room = self._room(request)
        return room.evaluation.run(request, self._start(request, room)).pack()

    def _room(self, request: TrainRequest | EvaluateRequest) -> Room:
        if request.group not in self.rooms:
            raise OpenError(f"asked for clients of group {request.group!r}, of whom none live here")
        return self.rooms[request.group]

    def _flush(self) -> None:
        """Write what the store does not have."""
        self.state.flush()
        if self.watched:
            self.watched.flush()

    def _start(self, request: TrainRequest | EvaluateRequest, room: Room) -> Start:
        self._begin(request.header)
        broadcast = {name: self._tensor(values) for name, values in request.broadcast.items()}
        layout, method = room.trainer.layout, self._method(request.header)
        received = self._backbones(request, layout)
        return Start(request.header.round, received, broadcast, method)

    def _begin(self, header: Header) -> None:
        if self.store and header.generation > self.generation:
            self.store.begin(header.generation, header.resumed_from)
            self.state.forget()  # it may be of rounds that the run will do again
        self.generation = max(header.generation, self.generation)

    def _method(self, header: Header) -> LocalMethod:
        key = f"{header.method} {header.method_options}"
        if key not in self.methods:
            self.methods[key] = make_method(header.method, header.method_options)
        return self.methods[key]

    def _backbones(self, request: TrainRequest | EvaluateRequest, layout: Layout) -> Tensor:
        """Return the backbone ``[P + B]``, or the several ``[k, P + B]`` that clients need."""
        arrays, received = request.backbone, request.asked.received
        if received is None:
            return self._backbone(arrays, layout)
        count = len(next(iter(arrays.values()), ()))
        if any(array.shape[:1] != (count,) for array in arrays.values()):
            raise OpenError("the server sends other numbers of one tensor than of another")
        if ((received < -1) | (received >= count)).any():
            raise OpenError("the server names a backbone that it does not send")
        rows = [{n: array[row] for n, array in arrays.items()} for row in range(count)]
        return torch.stack([self._backbone(row, layout) for row in rows])

    def _backbone(self, arrays: Mapping[str, np.ndarray], layout: Layout) -> Tensor:
        for name, shape in layout.shapes.items():
            if name not in arrays or arrays[name].shape != shape:
                has = arrays[name].shape if name in arrays else "nothing"
                raise OpenError(
                    f"the server's backbone has {has} for {name!r}, this node's {shape}: "
                    "give both the same model and data settings"
                )
        return self._tensor(layout.flat({n: to_tensor(a) for n, a in arrays.items()}))

    def _tensor(self, values: np.ndarray | Tensor) -> Tensor:
        tensor = values if isinstance(values, Tensor) else to_tensor(values)
        return tensor.to(self.device)
