"""The base of every strategy: a Flower strategy that asks a plug-in only to merge."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedjoint import messages
from fedjoint.collect import Asked, Collector
from fedjoint.config import Config
from fedjoint.diagnostics import diagnose
from fedjoint.errors import UserError
from fedjoint.layout import Layout
from fedjoint.population import Population, assign, makespan
from fedjoint.records import to_arrays, to_record, to_tensor
from fedjoint.tasks import Task
from fedjoint.updates import Updates

log = logging.getLogger("fedjoint.strategy")

_NAMED = 1000  # most clients that a round's record names


class JointStrategy(Strategy):
    """Base class of every strategy. A plug-in implements :meth:`merge`.

    Sampling, messages, failures, metrics and diagnostics are done here. :meth:`bind` readies
    it for a run; then Flower's :meth:`start` runs the rounds.

    Attributes:
        per_client: whether :meth:`merge` needs one row per client. Where it only uses
            ``updates.mean()`` and ``updates.by_task()``, say False: with many clients, the
            updates are then summed where they are made (rows are means over blocks of clients
            with the same tasks, for which both stay exact), and memory does not grow with
            the clients.
        method: the local method that clients run, by registered name.
        method_options: options of the local method.
        state: what the strategy remembers between rounds, by name; saved in checkpoints.
    """

    per_client: bool = True
    method: ClassVar[str] = "joint"

    def __init__(self) -> None:
        self.method_options: dict[str, float | int | str] = {}
        self.state: dict[str, Tensor] = {}

    def broadcast(self, backbone: Tensor) -> dict[str, Tensor]:
        """Return further tensors for the clients' method (say, a control variate ``[P]``)."""
        return {}

    def merge(self, updates: Updates) -> Tensor:
        """Merge the updates of a round into the ``[P]`` step of the backbone."""
        raise NotImplementedError

    def bind(
        self,
        config: Config,
        *,
        run: Path,
        tasks: tuple[Task, ...] | None = None,
        wait: float = 0.0,
        first_round: int = 1,
        generation: int = 0,
        on_round: Callable[[dict[str, Any]], None] = lambda record: None,
        on_checkpoint: Callable[[int, dict[str, Tensor]], None] = lambda round, backbone: None,
    ) -> None:
        """Ready the strategy for a run.

        Args:
            config: the run's configuration.
            run: the run directory.
            tasks: the tasks, where they have losses or metrics of their own; by default what
                the nodes say.
            wait: seconds to wait for ``engine.min_nodes`` nodes.
            first_round: the round that Flower's round one is.
            generation: how often the run was resumed.
            on_round: receives the record of every round.
            on_checkpoint: receives the backbone at every checkpoint, once every node has
                written its private state.
        """
        self.config, self.run, self.first_round, self.wait = config, run, first_round, wait
        self.generation, self.resumed_from = generation, first_round - 1
        self.on_round, self.on_checkpoint = on_round, on_checkpoint
        self.durable = first_round - 1
        self.tasks = tasks
        self.nodes: dict[int, dict[str, Any]] = {}
        self.left: dict[int, dict[str, Any]] = {}
        self.replaced: set[int] = set()
        self.refused: dict[int, str] = {}
        self.layout: Layout | None = None
        self.buffers: list[str] = []
        self.initial: dict[str, np.ndarray] = {}
        self.people: Population | None = None
        self.placed: dict[int, int] = {}
        self.costs: dict[int, float] = {}
        self.asked: dict[int, Asked] = {}
        self.seen: dict[int, float] = {}

    # Who is there

    def discover(self, grid: Grid) -> None:
        """Ask new nodes who lives there; forget those that are gone; wait while they are too few.

        Raises:
            UserError: too few nodes came in time, or those that came cannot take part.
        """
        least, end = self.config.engine.min_nodes, time.monotonic() + self.wait
        while True:
            present = set(grid.get_node_ids())
            self._meet(grid, present)
            if len(self.nodes) >= least:
                return
            hopeless = self.people is None and len(present) >= least
            if hopeless or time.monotonic() >= end:
                reasons = "; ".join(f"node {n}: {why}" for n, why in self.refused.items())
                raise UserError(
                    f"{len(self.nodes)} of {len(present)} nodes can take part, "
                    f"engine.min_nodes is {least}: {reasons or 'no other node came'}"
                )
            log.info("waiting for nodes: %d of %d are here", len(self.nodes), least)
            time.sleep(1.0)

    def _meet(self, grid: Grid, present: set[int]) -> None:
        gone = [node for node in self.nodes if node not in present]
        # Those refused before are asked again: they may have mended.
        new = sorted(present - set(self.nodes) - self.replaced)
        for node in gone:
            log.warning("node %s (%d) is gone", self.nodes[node]["name"], node)
            self.left[node] = self.nodes[node]
            del self.nodes[node]
        if not new and not gone:
            return
        content = messages.pack(self._common(0) | {"initial": not self.initial})
        asked = [Message(content, node, messages.QUERY) for node in new]
        for reply in grid.send_and_receive(asked, timeout=self.config.strategy.timeout):
            node = reply.metadata.src_node_id
            try:
                self._admit(node, reply)
            except UserError as error:
                if self.refused.get(node) != str(error):
                    log.error("node %d refused: %s", node, error)
                self.refused[node] = str(error)
        if self.nodes:
            self._know()

    def _admit(self, node: int, reply: Message) -> None:
        if reply.has_error():
            raise UserError(reply.error.reason or "it cannot start")
        about = messages.settings(reply)
        layout = Layout({name: tuple(shape) for name, shape in about["layout"].items()})
        if self.layout is None:
            self.layout = layout
            self.buffers = [name for name in about["buffers"] if name in layout.shapes]
        elif layout != self.layout:
            raise UserError(
                "its backbone differs from the other nodes': give all the same model settings"
            )
        if not self.initial:
            self.initial = messages.arrays(reply, "backbone")
        known = {
            name: (kind, outputs) for n in self.nodes.values() for name, kind, outputs in n["tasks"]
        }
        for name, kind, outputs in about["tasks"]:
            if known.get(name, (kind, outputs)) != (kind, outputs):
                raise UserError(
                    f"task {name!r} is {kind} with {outputs} outputs there, {known[name]} elsewhere"
                )
        about |= _population(reply, len(about["tasks"]))
        self._replace(node, about)
        self.nodes[node] = about
        self.seen[node] = time.time()
        self.refused.pop(node, None)
        self.left = {n: a for n, a in self.left.items() if n != node and a["name"] != about["name"]}
        log.info(
            "node %s (%d): %d clients, device %s",
            about["name"],
            node,
            len(self.nodes[node]["ids"]),
            about["device"],
        )

    def _replace(self, node: int, about: dict[str, Any]) -> None:
        """Forget the node that ``about`` is, if it was here under another number before."""
        if about["movable"]:
            return
        for other, known in list(self.nodes.items()):
            shared = np.intersect1d(known["ids"], about["ids"])
            if not len(shared):
                continue
            if known["name"] != about["name"]:
                raise UserError(
                    f"client {shared[0]} lives on node {known['name']} already: give every "
                    "client one id"
                )
            log.warning("node %s (%d) is back as %d", about["name"], other, node)
            self.replaced.add(other)
            del self.nodes[other]

    def _know(self) -> None:
        """Rebuild the population from what the nodes said."""
        movable = [n for n in self.nodes.values() if n["movable"]]
        hosts = movable[:1] or [self.nodes[n] for n in sorted(self.nodes)]
        names: list[str] = []
        for about in hosts:
            names += [name for name, _, _ in about["tasks"] if name not in names]
        kinds = {name: (kind, outputs) for about in hosts for name, kind, outputs in about["tasks"]}
        given = {task.name: task for task in self.tasks or ()}
        self.known = tuple(given.get(name) or Task(name, *kinds[name]) for name in names)
        ids, sizes, tasks, home = [], [], [], []
        for number, about in enumerate(self.nodes.values()):
            if not any(about is host for host in hosts):
                continue
            mask = np.zeros((len(about["ids"]), len(names)), bool)
            mask[:, [names.index(name) for name, _, _ in about["tasks"]]] = about["mask"]
            ids.append(about["ids"])
            sizes.append(about["sizes"])
            tasks.append(mask)
            home.append(np.full(len(about["ids"]), -1 if movable else number))
        everyone = np.concatenate(ids)
        order = np.argsort(everyone, kind="stable")
        self.people = Population(
            everyone[order],
            np.concatenate(sizes)[order],
            np.concatenate(tasks)[order],
            np.concatenate(home)[order],
            self.config.engine.blocks,
        )
        self.costs = {}  # the blocks are others now
        self._place()

    def _place(self) -> None:
        p = self.people
        assert p is not None
        loads = np.bincount(p.block, p.sizes)
        rate = sum(self.costs.values()) / max(1.0, float(sum(loads[b] for b in self.costs)))
        costs = {b: self.costs.get(b, (rate or 1.0) * float(loads[b])) for b in range(len(loads))}
        if (p.home < 0).all():
            new = assign(costs, list(self.nodes))
            nodes = set(self.nodes)
            stays = self.placed.keys() == new.keys() and nodes.issuperset(self.placed.values())
            # Moving a block costs its data and heads a new home: it has to pay.
            if not stays or makespan(costs, new) < 0.9 * makespan(costs, self.placed):
                self.placed = new
        else:
            first, hosts = np.unique(p.block, return_index=True)[1], list(self.nodes)
            self.placed = {int(p.block[i]): hosts[p.home[i]] for i in first}

    def report_nodes(self) -> list[dict[str, Any]]:
        """Return every node met: number, name, state, when last heard of, clients and tasks."""
        met = [(n, about, "here") for n, about in self.nodes.items()]
        met += [(n, about, "gone") for n, about in self.left.items()]
        return [
            {
                "node": str(node),
                "name": about["name"],
                "state": state,
                "last_seen": self.seen[node],
                "clients": len(about["ids"]),
                "tasks": [name for name, _, _ in about["tasks"]],
                "device": about["device"],
            }
            for node, about, state in met
        ] + [
            {"node": str(node), "name": "", "state": f"refused: {why}"}
            for node, why in self.refused.items()
        ]

    # Training

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per node with a sampled client."""
        self.started = time.perf_counter()
        self.discover(grid)
        round = self.first_round + server_round - 1
        p, s = self.people, self.config.strategy
        assert p is not None and self.layout is not None
        self.backbone_record = arrays
        named = to_arrays(arrays)
        self.backbone = self.layout.flat({n: to_tensor(a) for n, a in named.items()})
        chosen = p.sample(self.config.seed, round, s.fraction)
        small = len(chosen) <= self.config.diagnostics.clients
        plain = not self.per_client and not small and s.compression.name == "none"
        self.collector = Collector(self.layout, tuple(t.name for t in self.known), reduce=plain)
        self.sent_to = len(chosen)
        extra = self.broadcast(self.backbone)
        self.bytes_down = 4 * self.layout.size + sum(t.nbytes for t in extra.values())
        self.broadcast_record = to_record(extra)
        weights = self._weights(chosen)
        self.asked = self._split(chosen, weights)
        settings = self._common(round) | {"reduce": plain}
        return [
            self._message(messages.TRAIN, node, settings, asked)
            for node, asked in self.asked.items()
        ]

    def _weights(self, chosen: np.ndarray) -> np.ndarray:
        p = self.people
        assert p is not None
        if self.config.strategy.weight_by == "examples":
            return p.sizes[chosen].astype(float)
        if self.config.strategy.weight_by == "client":
            return np.ones(len(chosen))
        tasks = p.tasks[chosen]
        return (tasks / np.maximum(tasks.sum(0), 1)).sum(1)

    def _split(self, chosen: np.ndarray, weights: np.ndarray) -> dict[int, Asked]:
        """Divide the chosen clients among the nodes, block by block."""
        p = self.people
        assert p is not None
        order = np.argsort(p.block[chosen], kind="stable")
        chosen, weights = chosen[order], weights[order]
        nodes = list(self.nodes)
        numbers = {node: number for number, node in enumerate(nodes)}
        seats = np.array([numbers[self.placed[block]] for block in range(len(self.placed))])
        at = seats[p.block[chosen]]
        split = {}
        for number in np.unique(at).tolist():
            mine = chosen[at == number]
            blocks, sizes = np.unique(p.block[mine], return_counts=True)
            split[nodes[number]] = Asked(
                p.ids[mine], weights[at == number], blocks, sizes, p.tasks[mine]
            )
        return split

    def _message(self, kind: str, node: int, settings: dict[str, Any], asked: Asked) -> Message:
        plan = {
            "clients": asked.clients,
            "weights": asked.weights,
            "blocks": asked.blocks,
            "sizes": asked.sizes,
        }
        content = messages.pack(
            settings, backbone=self.backbone_record, broadcast=self.broadcast_record, plan=plan
        )
        return Message(content, node, kind, ttl=self.config.strategy.timeout)

    def _common(self, round: int) -> dict[str, Any]:
        return {
            "run": str(self.run.resolve()),
            "round": round,
            "generation": self.generation,
            "resumed_from": self.resumed_from,
            "durable": self.durable,
            "config": self.config.model_dump(mode="json"),
            "method": self.config.local.method or self.method,
            "method_options": {} if self.config.local.method else self.method_options,
        }

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the updates; keep the previous backbone where that fails."""
        round = self.first_round + server_round - 1
        answered = set()
        for reply in replies:
            node = reply.metadata.src_node_id
            if not reply.has_error():
                self.seen[node] = time.time()
            if node in self.asked:
                self.collector.add(node, self.asked[node], reply)
                answered.add(node)
        for node in self.asked.keys() - answered:
            self.collector.failed.append(
                {"client": None, "node": node, "reason": "no reply within the round's time limit"}
            )
        c = self.collector
        c.settle()
        self.costs |= c.block_seconds
        merging = time.perf_counter()
        step, problem, diagnostics = self._step(round)
        objective, losses = c.losses()
        self.record: dict[str, Any] = {
            "round": round,
            "objective": objective,
            "loss": losses,
            "evaluation": None,
            "clients": {
                "asked": self.sent_to,
                "trained": c.trained,
                "failed": c.failed,
                "ids": c.ids() if self.sent_to <= _NAMED else None,
            },
            "kept": problem,
            "fallback": c.fallback,
            "bytes": {
                "down": self.bytes_down * self.sent_to if c.shares else 0,
                "up": c.bytes_up,
            },
            "seconds": {
                "train": c.node_seconds,
                "merge": time.perf_counter() - merging,
                "gather": max(0.0, merging - self.started - c.node_seconds),
            },
            "diagnostics": diagnostics,
        }
        if step is not None:
            self.backbone = self.backbone + step
            views = {n: t.contiguous() for n, t in self.layout.views(self.backbone).items()}  # type: ignore[union-attr]
            self.backbone_record = to_record(views)
        return self.backbone_record, None

    def _step(self, round: int) -> tuple[Tensor | None, str | None, dict[str, object] | None]:
        """Return the step, or why the backbone stays as it is, and the diagnostics."""
        c, d = self.collector, self.config.diagnostics
        if not c.shares:
            return None, None, None
        if c.trained < self.config.strategy.min_clients or not c.parts:
            least = self.config.strategy.min_clients
            return self._keep(
                round, f"{c.trained} clients trained, strategy.min_clients is {least}"
            )
        # A copy: whatever a plug-in does to it, the run's own stays as it is.
        updates = c.updates(self.backbone.clone(), round)
        before = dict(self.state)
        try:
            step = self.merge(updates)
            if not isinstance(step, Tensor) or step.shape != self.backbone.shape:
                shape = tuple(step.shape) if isinstance(step, Tensor) else type(step).__name__
                raise UserError(f"merge returned {shape}, not {tuple(self.backbone.shape)}")
            step = self._with_mean_buffers(step.detach().to(self.backbone), updates)
            if not torch.isfinite(step).all():
                raise UserError("merge returned a step that is not finite")
            for name, value in self.state.items():
                if not isinstance(value, Tensor):
                    raise UserError(f"state[{name!r}] is {type(value).__name__}, not a tensor")
        except Exception as error:  # a plug-in may raise anything
            self.state = before
            if not isinstance(error, UserError):
                log.exception("merge failed")
            return self._keep(round, f"{type(self).__name__}: {error}")
        due = d.every and round % d.every == 0
        return step, None, diagnose(updates, step, d.clients) if due else None

    def _with_mean_buffers(self, step: Tensor, updates: Updates) -> Tensor:
        """Return ``step``, but for BatchNorm's statistics, of which only a mean makes sense."""
        if not self.buffers:
            return step
        step = step.clone()
        assert self.layout is not None
        mine, mean = self.layout.views(step), self.layout.views(updates.mean())
        for name in self.buffers:
            mine[name].copy_(mean[name])
        return step

    def _keep(self, round: int, why: str) -> tuple[None, str, None]:
        log.error("round %d: the previous backbone is kept: %s", round, why)
        return None, why, None

    # Evaluation, and the end of a round

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per node with a client to evaluate; none in rounds without."""
        self.grid = grid
        self.evaluating = time.perf_counter()
        round = self.first_round + server_round - 1
        e = self.config.evaluate
        if round % e.every and round != self.config.rounds:
            return []
        p = self.people
        assert p is not None
        chosen = p.sample_evaluation(self.config.seed, round, e.fraction)
        self.broadcast_record = to_record(self.broadcast(self.backbone))
        asked = self._split(chosen, np.ones(len(chosen)))
        settings = self._common(round)
        return [self._message(messages.EVALUATE, node, settings, a) for node, a in asked.items()]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Pool the metrics; then close the round."""
        round = self.first_round + server_round - 1
        sums: dict[str, dict[int, np.ndarray]] = {}
        for reply in replies:
            node = reply.metadata.src_node_id
            try:
                if reply.has_error():
                    raise UserError(reply.error.reason or "evaluation failed")
                config = messages.settings(reply)
                values, blocks = messages.arrays(reply, "sums"), messages.arrays(reply, "blocks")
                for failure in config["failed"]:
                    log.error("round %d: %s", round, failure)
                for name, rows in values.items():
                    for block, row in zip(blocks[name].tolist(), rows, strict=True):
                        sums.setdefault(name, {})[block] = row
            except (UserError, KeyError, ValueError) as error:
                log.error("round %d: node %d: evaluation: %s", round, node, error)
        if sums:
            self.record["evaluation"] = self._values(sums)
        self.record["seconds"]["evaluate"] = time.perf_counter() - self.evaluating
        self.record["seconds"]["round"] = time.perf_counter() - self.started
        self.on_round(self.record)
        every = self.config.output.checkpoint_every
        if round % every == 0 or round == self.config.rounds:
            self._checkpoint(round)
        return None

    def _values(self, sums: dict[str, dict[int, np.ndarray]]) -> dict[str, dict[str, float | None]]:
        found: dict[str, dict[str, float | None]] = {}
        for split in ("train", "valid", "test"):
            found[split] = {}
            for task in self.known:
                blocks = sums.get(f"{split}/{task.name}")
                # Always in the order of the blocks: the sum does not depend on arrival.
                total = (
                    sum(torch.from_numpy(blocks[b].copy()) for b in sorted(blocks))
                    if blocks
                    else None
                )
                value = task.metric_fn.value(total) if isinstance(total, Tensor) else float("nan")
                found[split][task.name] = value if np.isfinite(value) else None
        return found

    def _checkpoint(self, round: int) -> None:
        before = dict(self.placed)
        if self.nodes and all(n["movable"] for n in self.nodes.values()):
            self._place()
        settings = self._common(round) | {"forget": before != self.placed}
        asked = [Message(messages.pack(settings), node, messages.PERSIST) for node in self.nodes]
        for reply in self.grid.send_and_receive(asked, timeout=self.config.strategy.timeout):
            if not reply.has_error():
                continue
            node = reply.metadata.src_node_id
            log.error("round %d: node %d did not save: %s", round, node, reply.error.reason)
            # A deployed node has written after every message; a simulated one has not.
            if self.nodes[node]["movable"]:
                log.error("round %d: no checkpoint, the one before stays", round)
                return
        self.on_checkpoint(round, self.layout.views(self.backbone))  # type: ignore[union-attr]
        self.durable = round

    def summary(self) -> None:
        """Log what runs."""
        log.info("strategy %s, local method %s", type(self).__name__, self.method)


def _population(reply: Message, tasks: int) -> dict[str, np.ndarray]:
    """Return the checked ``ids`` and ``sizes`` ``[n]`` and ``mask`` ``[n, tasks]`` of a node."""
    found = messages.arrays(reply, "population")
    count = len(found.get("ids", ()))
    for name, kind, shape in (
        ("ids", "iu", (count,)),
        ("sizes", "iu", (count,)),
        ("mask", "b", (count, tasks)),
    ):
        array = found.get(name)
        if array is None or array.dtype.kind not in kind or array.shape != shape:
            raise UserError(f"damaged message: its population has no {name} of shape {shape}")
        if kind == "iu" and count and int(array.min()) < 0:
            raise UserError(f"damaged message: its population has negative {name}")
    return found
