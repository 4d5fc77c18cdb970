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

from fedjoint import evaluation, messages
from fedjoint.collect import Asked, Collector
from fedjoint.config import Config
from fedjoint.diagnostics import diagnose
from fedjoint.errors import UserError
from fedjoint.logs import event
from fedjoint.method import Method, make_method
from fedjoint.pull import equal_pull
from fedjoint.records import to_arrays, to_record, to_tensor
from fedjoint.roster import Roster
from fedjoint.tasks import Task
from fedjoint.text import plain, who
from fedjoint.transfer import Reference
from fedjoint.updates import Updates

log = logging.getLogger("fedjoint.strategy")

_LATE = "no reply within the round's time limit"
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
        method: the local method that clients run, by registered name. One other than ``joint`` is
            part of the strategy: ``local.method`` may not replace it.
        method_options: options of the local method.
        omits: in a few words, what of the paper that it is named after is left out.
        state: what the strategy remembers between rounds, by name; saved in checkpoints. A merge
            may change it in place: where the merge fails, it is what it was before.
    """

    per_client: bool = True
    method: ClassVar[str] = "joint"
    omits: ClassVar[str] = ""

    def __init__(self) -> None:
        self.method_options: dict[str, float | int | str] = {}
        self.state: dict[str, Tensor] = {}

    def check_config(self, config: Config, method: Method) -> None:
        """Refuse, before the first round, what the strategy is not made for.

        Args:
            config: the run's configuration.
            method: the local method that clients will run.

        Raises:
            UserError: the line says what is wrong and how to put it right.
        """

    def broadcast(self, backbone: Tensor) -> dict[str, Tensor]:
        """Return further tensors for the clients' method (say, a control variate ``[P]``).

        Args:
            backbone: ``[P]``, the parameters that the clients will receive.
        """
        return {}

    def merge(self, updates: Updates) -> Tensor:
        """Merge the updates of a round into the ``[P]`` step of the backbone.

        ``updates`` is to be read: a merge that writes to it is refused, as what is computed of
        the round afterwards would be wrong.
        """
        raise NotImplementedError

    def checked_broadcast(self, backbone: Tensor, round: int) -> dict[str, Tensor]:
        """Return what :meth:`broadcast` does, which a round cannot do without.

        Args:
            backbone: ``[P]``, a copy, as a plug-in may change it.
            round: the round.

        Raises:
            UserError: it fails, or what it returns or leaves as state is no dict of finite
                tensors.
        """
        try:
            extra = self.broadcast(backbone)
            if not isinstance(extra, dict):
                raise UserError(f"it returned {type(extra).__name__}, not a dict of tensors")
            _check_tensors("what it returned", extra)
            _check_tensors("state", self.state)
        except Exception as error:  # a plug-in may raise anything
            if not isinstance(error, UserError):
                log.exception("broadcast failed")
            raise UserError(f"round {round}: {type(self).__name__}.broadcast: {error}") from error
        return extra

    def bind(
        self,
        config: Config,
        *,
        run: Path,
        tasks: tuple[Task, ...] | None = None,
        wait: float = 0.0,
        deployed: bool = False,
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
            deployed: whether nodes have data of their own.
            first_round: the round that Flower's round one is.
            generation: how often the run was resumed.
            on_round: receives the record of every round.
            on_checkpoint: receives the backbone at every checkpoint, once every node has
                written its private state.

        Raises:
            UserError: ``diagnostics.reference`` is not a run to compare this one with, or the
                state that the strategy starts with holds something else than finite tensors.
        """
        _check_tensors(f"strategy {type(self).__name__}: state", self.state)
        self.config, self.run, self.first_round = config, run.resolve(), first_round
        self.generation, self.resumed_from = generation, first_round - 1
        self.on_round, self.on_checkpoint = on_round, on_checkpoint
        self.settings = config.model_dump(mode="json")
        self.durable = first_round - 1
        self.local = make_method(*self.local_method(config))
        self.roster = Roster(config, tasks, wait, deployed)
        self.asked: dict[int, Asked] = {}
        reference = config.diagnostics.reference
        self.reference = Reference(reference, config) if reference else None

    # Training

    def discover(self, grid: Grid) -> None:
        """Find out who is there.

        Raises:
            UserError: see :meth:`fedjoint.roster.Roster.discover`.
        """
        self.roster.discover(grid, self._common(0))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per node with a sampled client."""
        self.started = time.perf_counter()
        self.discover(grid)
        round = self.first_round + server_round - 1
        p, s = self.roster.people, self.config.strategy
        self.backbone_record = arrays
        named = to_arrays(arrays)
        self.backbone = self.roster.layout.flat({n: to_tensor(a) for n, a in named.items()})
        chosen = p.sample(self.config.seed, round, s.fraction)
        d = self.config.diagnostics
        small = len(chosen) <= d.clients
        plain = not self.per_client and not small and s.compression.name == "none"
        self.due = bool(d.every) and round % d.every == 0
        compared = chosen[:0]
        if self.due:
            compared = p.sample_compared(chosen, self.config.seed, round, d.clients)
        self.collector = Collector(
            self.roster.layout,
            tuple(t.name for t in self.roster.tasks),
            reduce=plain,
            sample=p.ids[compared],
            shares=self.local.shares,
            compression=s.compression,
        )
        self.sent_to = len(chosen)
        if not self.roster.deployed and len(chosen) < s.min_clients:
            raise UserError(
                f"strategy.min_clients is {s.min_clients}, but a round has {len(chosen)} clients: "
                "lower it, or raise data.clients or strategy.fraction"
            )
        extra = self.checked_broadcast(self._parameters, round)
        self.bytes_down = 4 * self.roster.layout.size + sum(t.nbytes for t in extra.values())
        self.broadcast_record = to_record(extra)
        weights = self._weights(chosen)
        self.asked = self.roster.split(chosen, weights)
        settings = self._common(round) | {"reduce": plain}
        return [
            self._message(messages.TRAIN, node, settings, asked)
            for node, asked in self.asked.items()
        ]

    def _weights(self, chosen: np.ndarray) -> np.ndarray:
        p = self.roster.people
        if self.config.strategy.weight_by == "examples":
            return p.sizes[chosen].astype(float)
        if self.config.strategy.weight_by == "client":
            return np.ones(len(chosen))
        return equal_pull(p.tasks[chosen])

    def _message(self, kind: str, node: int, settings: dict[str, Any], asked: Asked) -> Message:
        plan = {
            "clients": asked.clients,
            "weights": asked.weights,
            "blocks": asked.blocks,
            "sizes": asked.sizes,
            "sampled": np.isin(asked.clients, self.collector.sample),
        }
        content = messages.pack(
            settings, backbone=self.backbone_record, broadcast=self.broadcast_record, plan=plan
        )
        return Message(content, node, kind, ttl=self.config.strategy.timeout)

    def local_method(self, config: Config) -> tuple[str, dict[str, Any]]:
        """Return name and options of the method that clients run."""
        local = config.local
        return (local.method, local.options) if local.method else (self.method, self.method_options)

    def _common(self, round: int) -> dict[str, Any]:
        method, options = self.local_method(self.config)
        return {
            "run": str(self.run),
            "round": round,
            "generation": self.generation,
            "resumed_from": self.resumed_from,
            "durable": self.durable,
            "config": self.settings,
            "method": method,
            "method_options": options,
        }

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the updates; keep the previous backbone where that fails."""
        sent = time.perf_counter()
        round = self.first_round + server_round - 1
        answered = set()
        for reply in replies:
            node = reply.metadata.src_node_id
            if node in self.asked:
                if not reply.has_error():
                    self.roster.seen[node] = time.time()
                self.collector.add(node, self.asked[node], reply)
                answered.add(node)
        for node in self.asked.keys() - answered:
            self.collector.failed.append({"client": None, "node": node, "reason": _LATE})
        c = self.collector
        c.settle()
        self.roster.costs |= c.block_seconds
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
                "broadcast": sent - self.started,
                "train": c.node_seconds,
                "gather": max(0.0, merging - sent - c.node_seconds),
                "merge": time.perf_counter() - merging,
            },
            "diagnostics": diagnostics,
        }
        if step is not None:
            self.backbone = self.backbone + step
            views = {n: t.contiguous() for n, t in self.roster.layout.views(self.backbone).items()}
            self.backbone_record = to_record(views)
        return self.backbone_record, None

    def _step(self, round: int) -> tuple[Tensor | None, str | None, dict[str, object] | None]:
        """Return the step, or why the backbone stays as it is, and the diagnostics."""
        c = self.collector
        if not c.shares:
            return None, None, None
        if c.trained < self.config.strategy.min_clients or not c.parts:
            least = self.config.strategy.min_clients
            return self._keep(
                round, f"{c.trained} clients trained, strategy.min_clients is {least}"
            )
        updates = c.updates(self._parameters, round)
        moved_buffers = c.mean_buffers(updates.weights)
        # Cloned, as a merge may change tensors in place.
        before = {name: value.clone() for name, value in self.state.items()}
        versions = _versions(updates)
        try:
            step = self.merge(updates)
            if not isinstance(step, Tensor) or step.shape != updates.backbone.shape:
                shape = tuple(step.shape) if isinstance(step, Tensor) else type(step).__name__
                raise UserError(f"merge returned {shape}, not {tuple(updates.backbone.shape)}")
            step = step.detach().to(self.backbone)
            if not torch.isfinite(step).all():
                raise UserError("merge returned a step that is not finite")
            _check_tensors("state", self.state)
            for name, version in _versions(updates).items():
                if version != versions[name]:
                    raise UserError(f"merge changed updates.{name} in place; change a copy of it")
            found = diagnose(updates, step, *c.compared(updates)) if self.due else None
        except Exception as error:  # a plug-in may raise anything
            self.state = before
            if not isinstance(error, UserError):
                log.exception("merge failed")
            return self._keep(round, f"{type(self).__name__}: {error}")
        # Of BatchNorm's statistics, only a mean makes sense.
        return torch.cat([step, moved_buffers]), None, found

    @property
    def _parameters(self) -> Tensor:
        """``[P]``, a copy of the backbone's parameters: plug-ins may do to it what they like."""
        return self.backbone[: self.roster.layout.parameters.size].clone()

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
        self.evaluated: dict[int, Asked] = {}
        if round % e.every and round != self.config.rounds:
            return []
        p = self.roster.people
        chosen = p.sample_evaluation(self.config.seed, round, e.fraction)
        self.broadcast_record = to_record(self.checked_broadcast(self._parameters, round))
        asked = self.roster.split(chosen, np.ones(len(chosen)))
        settings = self._common(round)
        self.evaluated = dict(asked)
        return [self._message(messages.EVALUATE, node, settings, a) for node, a in asked.items()]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Pool the metrics; then close the round."""
        round = self.first_round + server_round - 1
        sums: evaluation.Sums = {}
        failures: list[dict[str, Any]] = []
        for reply in replies:
            node = reply.metadata.src_node_id
            asked = self.evaluated.pop(node, None)
            if asked is None:
                continue  # nobody asked, or it has replied already
            try:
                found, failed = evaluation.read(reply, asked, self.roster.tasks)
            except Exception as error:  # whatever a forged reply may provoke
                failures.append({"client": None, "node": node, "reason": plain(error)})
                continue
            failures += [{"client": c, "node": node, "reason": reason} for c, reason in failed]
            for key, blocks in found.items():
                sums.setdefault(key, {}).update(blocks)
        failures += [{"client": None, "node": n, "reason": _LATE} for n in self.evaluated]
        for failure in failures:
            at = who(failure["client"], self.roster.name(failure["node"]))
            log.error("round %d: %s: evaluation: %s", round, at, failure["reason"])
        self.record["clients"]["unevaluated"] = failures
        if sums:
            values = self.record["evaluation"] = self._values(sums)
            if self.reference:
                transfer = self.reference.transfer(round, values["test"], self.roster.tasks)
                diagnostics = self.record["diagnostics"] or {}
                self.record["diagnostics"] = diagnostics | {"transfer": transfer}
        self.record["seconds"]["evaluate"] = time.perf_counter() - self.evaluating
        self.record["seconds"]["round"] = time.perf_counter() - self.started
        self.on_round(self.record)
        every = self.config.output.checkpoint_every
        if round % every == 0 or round == self.config.rounds:
            self._checkpoint(round)
        return None

    def _values(self, sums: evaluation.Sums) -> dict[str, dict[str, float | None]]:
        found: dict[str, dict[str, float | None]] = {}
        for split in evaluation.SPLITS:
            found[split] = {}
            for task in self.roster.tasks:
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
        before = dict(self.roster.placed)
        if self.roster.nodes and all(n.movable for n in self.roster.nodes.values()):
            self.roster.place()
        settings = self._common(round) | {"forget": before != self.roster.placed}
        asked = [
            Message(messages.pack(settings), node, messages.PERSIST) for node in self.roster.nodes
        ]
        for reply in self.grid.send_and_receive(asked, timeout=self.config.strategy.timeout):
            if not reply.has_error():
                continue
            node = reply.metadata.src_node_id
            name, why = self.roster.name(node), reply.error.reason
            log.error("round %d: node %s did not save: %s", round, name, why)
            # A deployed node has written after every message; a simulated one has not.
            about = self.roster.nodes.get(node)
            if about and about.movable:
                log.error("round %d: no checkpoint, the one before stays", round)
                return
        self.on_checkpoint(round, self.roster.layout.views(self.backbone))
        self.durable = round

    def summary(self) -> None:
        """Log what runs."""
        name, options = self.local_method(self.config)
        text = f"strategy {self.config.strategy.name}, local method {name}"
        details = {"strategy": self.config.strategy.name, "options": self.config.strategy.options}
        event(log, logging.INFO, "method", text, **details, method=name, method_options=options)


def _check_tensors(what: str, named: dict[str, Any]) -> None:
    """Raise a UserError where a value of ``named`` is no tensor, or not finite."""
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{what}[{name!r}] is {type(value).__name__}, not a tensor")
        if not torch.isfinite(value).all():
            raise UserError(f"{what}[{name!r}] is not finite")


def _versions(updates: Updates) -> dict[str, int]:
    """Return how often each of the tensors that diagnostics read was written to."""
    read = ("matrix", "weights", "clients", "tasks")
    return {name: getattr(updates, name)._version for name in read}
