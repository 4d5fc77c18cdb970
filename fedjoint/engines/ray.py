"""A Flower grid straight on Ray actors: one node per worker, no polling, one broadcast."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
import torch
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fedjoint._util.interrupt import held
from fedjoint._util.wording import first_line
from fedjoint.config.schema import EngineConfig
from fedjoint.engines import combining
from fedjoint.engines.base import Engine, MakeApp
from fedjoint.engines.combining import Machines, Sums, set_apart
from fedjoint.engines.local import LocalGrid, simulated_context
from fedjoint.engines.processes import INLINE, start, wait_for_early
from fedjoint.errors import UserError, said
from fedjoint.flower.compat import number
from fedjoint.protocol.arrays import to_arrays
from fedjoint.protocol.requests import TRAIN, asks_for_means
from fedjoint.protocol.wire import NODE_DIED
from fedjoint.registry import from_files

_PLACES = 60.0  # seconds in which Ray finds places for workers

_kept: list[Workers] = []


class Ray(Engine):
    """Workers on all cores and GPUs of this machine, or of a Ray cluster; a node each."""

    @contextmanager
    def grid(self, make_app: MakeApp) -> Iterator[Grid]:
        with self._workers() as workers:
            yield RayGrid(workers, make_app)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep the workers up for the runs inside: most of a short run is their start."""
        with self._workers() as workers:
            _kept.append(workers)
            try:
                yield
            finally:
                _kept.remove(workers)

    @contextmanager
    def _workers(self) -> Iterator[Workers]:
        """Yield the session's workers where they are of this configuration, else new ones."""
        for kept in _kept:
            if kept.config == self.config:
                yield kept
                return
        workers = None
        try:
            with held():  # Ray's own processes are not left half started
                workers = Workers(self.config)
            yield workers
        finally:
            if workers is not None:
                with held():
                    workers.close()


class Worker(Sums):
    """A node in a Ray actor.

    Args:
        context: the node's context.
        path: where the driver finds modules, those of the problem included.
    """

    def __init__(self, context: Context, path: list[str]):
        torch.set_num_threads(1)
        sys.path += [folder for folder in path if folder not in sys.path]
        self.context = context

    def host(self, make_app: MakeApp) -> None:
        """Make the app; problems may be large, and Ray shares what is passed here."""
        self.app = make_app()

    def handle(self, message: Message, names: list[str], *records: ArrayRecord) -> Message:
        """Answer ``message``, whose shared ``records`` (``names``) come from the object store."""
        for name, record in zip(names, records, strict=True):
            message.content[name] = record
        try:
            return self.app(message, self.context)
        except Exception as error:
            return Message(Error(code=2, reason=str(error)), reply_to=message)

    def train(
        self, least: int, message: Message, names: list[str], *records: ArrayRecord
    ) -> tuple[Message, Any]:
        """Answer as :meth:`handle` does, but keep means of blocks on this machine.

        Args:
            least: bytes of a row from which it is kept.
            message: see :meth:`handle`.
            names: alike.
            records: alike.
        """
        reduce = asks_for_means(message)
        reply = self.handle(message, names, *records)
        try:
            return set_apart(reply, least) if reduce else (reply, None)
        except Exception as error:  # such as that there is no memory for copies
            return Message(Error(code=2, reason=said(error)), reply_to=message), None


class Workers:
    """Actors in their places, which may serve one run after another.

    Args:
        config: workers, CPUs and GPUs, address.

    Attributes:
        machines: node -> the machine that it is on, as Ray calls it; empty on this one alone.

    Raises:
        UserError: the cluster cannot be joined, or cannot ever hold the workers.
    """

    def __init__(self, config: EngineConfig):
        wait_for_early()
        self.config, self.owned = config, not ray.is_initialized()
        if self.owned:
            start(config)
        self.cpus, self.gpus, self.count = workers(config, ray.cluster_resources())
        self.actors: dict[int, Any] = {}
        self.group = placement_group([self._bundle()] * self.count, strategy="SPREAD")
        self._placed, self.machines = False, dict[int, str]()
        try:
            self.wait_for_places()
        except UserError:
            self.close()
            raise
        self.actors = {node: self._start_actor(node) for node in range(1, self.count + 1)}

    def wait_for_places(self) -> None:
        """Wait until all workers have places, also those whose machine has died.

        Raises:
            UserError: the cluster has none for them.
        """
        if self._placed:
            return
        if not self.group.wait(timeout_seconds=_PLACES):
            free = ray.available_resources()
            raise UserError(
                f"Ray cannot place {self.count} workers with {self.cpus:g} CPUs and "
                f"{self.gpus:g} GPUs each; free are {free.get('CPU', 0):g} CPUs and "
                f"{free.get('GPU', 0):g} GPUs: lower engine.workers or what each asks for"
            )
        self._placed = True
        if self.config.address:
            placed = placement_group_table(self.group)["bundles_to_node_id"]
            self.machines = {bundle + 1: machine for bundle, machine in placed.items()}

    def host(self, make_app: MakeApp) -> None:
        """Have every worker make the app of the next run.

        Raises:
            UserError: a worker cannot.
        """
        for module in from_files():
            ray.cloudpickle.register_pickle_by_value(module)
        self.make_app = ray.put(make_app)
        try:
            ray.get([actor.host.remote(self.make_app) for actor in self.actors.values()])
        except ray.exceptions.RayTaskError as error:
            why = first_line(error.cause)
            raise UserError(f"a worker cannot load the problem: {why}") from None

    def replace(self, node: int) -> None:
        """Start a worker in the place of one that died."""
        self._placed = False
        self.actors[node] = self._start_actor(node)
        self.actors[node].host.remote(self.make_app)

    def replace_dead(self, seconds: float) -> list[int]:
        """Replace the workers that died; return their nodes.

        Args:
            seconds: after which one that says nothing is taken to be at work.
        """
        asked = {actor.__ray_ready__.remote(): node for node, actor in self.actors.items()}
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
        dead = []
        for answer in done:
            try:
                ray.get(answer)
            except ray.exceptions.RayActorError:
                dead.append(asked[answer])
                self.replace(asked[answer])
        return sorted(dead)

    def close(self) -> None:
        """Stop the workers, and Ray where they started it."""
        for actor in self.actors.values():
            ray.kill(actor)
        remove_placement_group(self.group)
        if self.owned:
            ray.shutdown()

    def _start_actor(self, node: int) -> Any:
        actor = ray.remote(Worker).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self.group, node - 1),
        )
        context = simulated_context(node, self.count)
        return actor.remote(context, sys.path)

    def _bundle(self) -> dict[str, float]:
        bundle = {"CPU": self.cpus, "GPU": self.gpus}
        return {name: amount for name, amount in bundle.items() if amount} or {"CPU": 0.001}


class RayGrid(LocalGrid):
    """Nodes on Ray actors.

    Args:
        workers: the actors.
        make_app: returns the ClientApp; pickled to the workers.
    """

    def __init__(self, workers: Workers, make_app: MakeApp):
        super().__init__()
        self.workers = workers
        workers.host(make_app)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, from one."""
        return self.workers.actors.keys()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Send, and return replies as they arrive; an error for what is late or lost.

        Raises:
            UserError: a machine has died, and the cluster has no room for its workers.
        """
        self.workers.wait_for_places()
        sent = number(messages)
        shared = _shared(sent)
        stubs = {id(record): ray.put(record) for record in shared}
        together = self._together()
        pending: dict[Any, _Sent] = {}
        for message in sent:
            names = [n for n, r in message.content.items() if id(r) in stubs]
            references = [stubs[id(message.content[n])] for n in names]
            rest = {n: r for n, r in message.content.items() if n not in names}
            light = Message(content=RecordDict(rest), metadata=message.metadata)  # type: ignore[call-overload]
            actor = self.workers.actors[message.metadata.dst_node_id]
            if together and message.metadata.message_type == TRAIN:
                train = actor.train.options(num_returns=2)
                reply, rows = train.remote(combining.LEAST, light, names, *references)
                pending[reply] = _Sent(message, rows, together)
            else:
                pending[actor.handle.remote(light, names, *references)] = _Sent(message)
        return self._replies(pending, timeout)

    def _together(self) -> Machines | None:
        """Return what sums rows on the machines where they are; None: there is one machine."""
        machines = self.workers.machines
        return Machines(self.workers, machines) if len(set(machines.values())) > 1 else None

    def _replies(self, pending: dict[Any, _Sent], timeout: float | None) -> Iterator[Message]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while pending:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = ray.wait(list(pending), num_returns=1, timeout=left)
            if not done:
                break
            message, rows, together = pending.pop(done[0])
            try:
                reply = ray.get(done[0])
                yield together.take(reply, rows) if together else reply
            except ray.exceptions.RayActorError as error:
                # A new worker takes its place; it reads the private state last saved.
                self.workers.replace(message.metadata.dst_node_id)
                reason = f"the worker failed: {first_line(error)}"
                yield Message(Error(NODE_DIED, reason), reply_to=message)
        for message, _, together in pending.values():
            if together:
                together.busy.add(message.metadata.dst_node_id)
            reason = f"no reply within {timeout:g} s"
            yield Message(Error(code=3, reason=reason), reply_to=message)


class _Sent(NamedTuple):
    """A message on its way.

    Attributes:
        message: the message.
        rows: reference to what its node keeps.
        together: sums that with what other nodes keep; None: the reply holds all there is.
    """

    message: Message
    rows: Any = None
    together: Machines | None = None


def workers(config: EngineConfig, resources: dict[str, float]) -> tuple[float, float, int]:
    """Return CPUs and GPUs per worker, and the number of workers.

    With GPUs, by default ``workers_per_gpu`` on each; without, one per ``cpus_per_worker``.

    Args:
        config: the engine's settings.
        resources: what Ray reports.

    Raises:
        UserError: a worker asks for a GPU and there is none.
    """
    cpus, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    share = config.gpus_per_worker
    if share is None:
        share = 1 / config.workers_per_gpu if gpus else 0.0
    if share > gpus:
        raise UserError(f"engine.gpus_per_worker = {share:g}, but Ray reports {gpus:g} GPUs")
    per_cpu = config.cpus_per_worker
    most = [int(gpus / share + 1e-9)] if share else []
    most += [int(cpus / per_cpu + 1e-9)] if per_cpu else []
    count = config.workers or max(1, min(most, default=1))
    return per_cpu, share, count


def _shared(messages: list[Message]) -> list[ArrayRecord]:
    """Return the large records that several messages carry."""
    seen: dict[int, tuple[ArrayRecord, int]] = {}
    for message in messages:
        for record in message.content.array_records.values():
            seen[id(record)] = record, seen.get(id(record), (record, 0))[1] + 1
    return [record for record, count in seen.values() if count > 1 and _bytes(record) > INLINE]


def _bytes(record: ArrayRecord) -> int:
    return sum(array.nbytes for array in to_arrays(record).values())
