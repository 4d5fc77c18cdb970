"""A node: hosts clients, trains and evaluates the cohorts that the server asks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Message, RecordDict
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.node.private import PrivateState
from fedjoint.node.store import StateStore
from fedjoint.problem import Problem
from fedjoint.protocol import messages
from fedjoint.protocol.arrays import to_tensor
from fedjoint.protocol.compression import compress
from fedjoint.randomness import Purpose, derive
from fedjoint.runs.ledger import Ledger
from fedjoint.training.draws import Drawing
from fedjoint.training.job import Job
from fedjoint.training.method import LocalMethod, make_method
from fedjoint.training.trainer import Trainer

log = logging.getLogger("fedjoint.node.node")


def best_device() -> torch.device:
    """Return the GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Node:
    """Answers the server's messages for the clients whose data it can reach.

    Args:
        problem: tasks, backbone and data.
        config: the run's configuration.
        store: SQLite file of the clients' private state, or None to keep it in memory.
        clients: id -> position in ``problem.data`` of the clients that live here; None for a
            simulated node, which can play any client.
        write_through: write private state after every message, as the process may end.
        name: what people call the node.
    """

    def __init__(
        self,
        problem: Problem,
        config: Config,
        store: Path | None,
        clients: Mapping[int, int] | None = None,
        write_through: bool = False,
        name: str = "",
    ):
        self.problem, self.config = problem, config
        self.trainer = Trainer(problem, config, best_device())
        self.store = StateStore(store) if store else None
        self.state = PrivateState(self.store, config.engine.cache_clients, self.trainer.device)
        self.places, self.name = clients, name
        self.write_through = write_through
        self.training = Drawing(self.trainer.device)
        self.evaluation = Drawing(self.trainer.device)
        self.generation = -1
        self.methods: dict[str, LocalMethod] = {}

    def handle(self, message: Message) -> RecordDict:
        """Answer one message.

        Raises:
            UserError: the message is damaged, or of another version.
        """
        request = messages.settings(message)
        answer = {
            messages.TRAIN: self.train,
            messages.EVALUATE: self.evaluate,
            messages.QUERY: self.query,
            messages.PERSIST: self.persist,
        }
        return answer[message.metadata.message_type](message, request)

    def query(self, message: Message, request: Mapping[str, Any]) -> RecordDict:
        """Say who lives here: ids, sizes and tasks; and the initial backbone, where asked."""
        data, trainer = self.problem.data, self.trainer
        ids = np.arange(len(data.sizes))
        rows = ids
        if self.places is not None:
            ids, rows = (
                np.array(list(part), np.int64) for part in zip(*self.places.items(), strict=True)
            )
        config = {
            "movable": self.places is None,
            "tasks": [[t.name, t.kind, t.outputs] for t in self.problem.tasks],
            "buffers": trainer.layout.buffers,
            "layout": {name: list(shape) for name, shape in trainer.layout.shapes.items()},
            "fallback": trainer.fallback,
            "device": str(trainer.device),
            "name": self.name,
        }
        population = {"ids": ids, "sizes": data.sizes[rows], "mask": data.tasks[rows]}
        initial = {}
        if request.get("initial"):
            state = trainer.model.state_dict()
            initial = {name: state[name] for name in trainer.layout.shapes}
        return messages.pack(config, population=population, backbone=initial)

    def persist(self, message: Message, request: Mapping[str, Any]) -> RecordDict:
        """Write all private state that counts to the store, and delete there what does not."""
        ledger = Ledger(**messages.arrays(message, "ledger"))
        self.state.settle(ledger)
        self.state.flush()
        if request.get("forget"):
            self.state.forget()
        if self.store:
            self.store.settle(ledger)
            self.store.prune(int(request["durable"]))
        return messages.pack({})

    def train(self, message: Message, request: Mapping[str, Any]) -> RecordDict:
        """Train the cohorts of the plan, block by block."""
        started = time.perf_counter()
        self._begin(request)
        method = self._method(request)
        received = self._backbone(message)
        broadcast = self._broadcast(message)
        plan = self._plan(message)
        clients, weights, reduce = plan["clients"], plan["weights"], bool(request["reduce"])
        width = self.trainer.layout.size if method.shares else 0
        learnt = min(width, self._learnt)
        rows = len(plan["blocks"]) if reduce else len(clients)
        out = np.zeros((rows, learnt), np.float32) if not self._compressed else None
        buffers = np.zeros((rows, width - learnt), np.float32)
        # Where sums are sent, rows of a few clients are, too, by the clients' order.
        sampled = plan["sampled"] if reduce else np.zeros(len(clients), bool)
        sample, seats = np.zeros((int(sampled.sum()), learnt), np.float32), sampled.cumsum() - 1
        collected = _Collected(len(clients), len(self.problem.tasks))
        seconds, start = [], 0
        payloads: dict[str, list[Tensor]] = {}
        for block, size in enumerate(plan["sizes"].tolist()):
            tick = time.perf_counter()
            total = torch.zeros(width, device=self.trainer.device)
            mass = 0.0
            for part in self.trainer.chunks(self._places(clients[start : start + size])):
                at = slice(start + part.start, start + part.stop)
                args = (clients[at], plan["counts"][at], request, received, broadcast, method)
                for done in self._train_chunk(*args):
                    where = np.flatnonzero(np.isin(clients[at], done.clients)) + at.start
                    collected.add(where, done)
                    if not done.good.any() or not method.shares:
                        continue
                    if reduce:
                        w = torch.from_numpy(np.where(done.good, weights[where], 0)).float()
                        w = w.to(total.device)
                        total += (
                            w @ done.update if done.good.all() else w @ done.update.nan_to_num()
                        )
                        mass += float(w.sum())
                        few = np.flatnonzero(sampled[where])
                        if len(few):
                            found = done.update[torch.from_numpy(few).to(total.device), :learnt]
                            sample[seats[where[few]]] = found.cpu().numpy()
                        continue
                    buffers[where] = done.update[:, learnt:].cpu().numpy()
                    if self._compressed:
                        for name, values in done.payload.items():
                            payloads.setdefault(name, []).append(values)
                    else:
                        assert out is not None
                        out[where] = done.update[:, :learnt].cpu().numpy()
            if reduce and mass > 0:
                assert out is not None
                mean = (total / mass).cpu().numpy()
                out[block], buffers[block] = mean[:learnt], mean[learnt:]
            seconds.append(time.perf_counter() - tick)
            start += size
        if self.write_through:
            self.state.flush()
        updates: dict[str, Any] = {}
        if method.shares and self._compressed and payloads:
            updates = {f"payload.{n}": torch.cat(v) for n, v in payloads.items()}
        elif method.shares and out is not None:
            updates = {"updates": out}
        config = {
            "round": request["round"],
            "tasks": [task.name for task in self.problem.tasks],
            "shares": method.shares,
            "failed": collected.failed,
            "seconds": time.perf_counter() - started,
            "bytes_per_client": collected.bytes,
            "fallback": self.trainer.fallback,
        }
        report = collected.report() | {"block_seconds": np.array(seconds)}
        extras = collected.extras()
        return messages.pack(
            config,
            updates=updates,
            buffers={"buffers": buffers} if buffers.size else {},
            sample={"sample": sample} if sample.size else {},
            extras=extras,
            report=report,
        )

    def _train_chunk(
        self,
        clients: np.ndarray,
        counts: np.ndarray,
        request: Mapping[str, Any],
        received: Tensor,
        broadcast: Mapping[str, Tensor],
        method: LocalMethod,
    ) -> list[_Trained]:
        """Train clients in one job; where that fails, one by one, so that only the bad fail."""
        try:
            return [self._train(clients, counts, request, received, broadcast, method)]
        except Exception as error:  # a client's data or model may raise anything
            if not isinstance(error, UserError):
                log.exception("round %s: training failed", request["round"])
            reason = _reason(error)
        if len(clients) > 1:
            rest = (request, received, broadcast, method)
            return [
                done
                for i in range(len(clients))
                for done in self._train_chunk(clients[i : i + 1], counts[i : i + 1], *rest)
            ]
        return [_Trained.failure(clients, reason, len(self.problem.tasks))]

    def _train(
        self,
        clients: np.ndarray,
        counts: np.ndarray,
        request: Mapping[str, Any],
        received: Tensor,
        broadcast: Mapping[str, Tensor],
        method: LocalMethod,
    ) -> _Trained:
        round = int(request["round"])
        cohort = self.trainer.cohort(self._places(clients), clients)

        def train() -> tuple[Job, dict[str, Tensor]]:
            shared = received.expand(len(clients), -1).clone()
            private = self._private(clients, counts, cohort.tasks, received, method)
            job = self.trainer.job(cohort, round, received, broadcast, shared, private)
            return job, method.train(job)

        job, extras = self.training.run(self._seeds(Purpose.TRAINING, round, clients), train)
        private = job.private
        update = job.shared.sub_(job.start) if method.shares else job.shared[:, :0]
        good = torch.isfinite(torch.linalg.vector_norm(job.shared, dim=1))
        mask = good.cpu().numpy()
        payload: dict[str, Tensor] = {}
        sent = update.shape[1] * 4 + sum(e[0].nbytes for e in extras.values())
        if self._compressed and method.shares:
            # BatchNorm's statistics are sent as they are: their part of the residual stays zero.
            at, residual = slice(self._learnt), private["compression.residual"]
            payload, update[:, at], residual[:, at] = compress(
                update[:, at], residual[:, at], self.config.strategy.compression
            )
            sent -= 4 * self._learnt - sum(part[0].nbytes for part in payload.values())
            payload = {name: values[good] for name, values in payload.items()}
        if mask.all():
            self.state.put(clients, counts, round, private)
        elif mask.any():
            keep = torch.from_numpy(np.flatnonzero(mask)).to(self.trainer.device)
            private = {n: t[keep] for n, t in private.items()}
            self.state.put(clients[mask], counts[mask], round, private)
        names = [task.name for task in self.problem.tasks]
        losses = np.full((len(clients), len(names)), np.nan, np.float32)
        columns = [names.index(task.name) for task in cohort.tasks]
        losses[:, columns] = job.losses.cpu().numpy()
        return _Trained(
            clients,
            update,
            mask,
            cohort.train.sizes,
            job.steps,
            job.work,
            losses,
            extras,
            payload,
            sent,
            "",
        )

    def evaluate(self, message: Message, request: Mapping[str, Any]) -> RecordDict:
        """Sum the metrics' statistics over the clients of each block."""
        started = time.perf_counter()
        self._begin(request)
        method, round = self._method(request), int(request["round"])
        received, broadcast = self._backbone(message), self._broadcast(message)
        plan = self._plan(message)
        sums: dict[str, list[Tensor]] = {}
        blocks: dict[str, list[int]] = {}
        values = np.full((len(plan["clients"]), len(self.problem.tasks)), np.nan, np.float32)
        failed: list[dict[str, Any]] = []
        start = 0
        for block, size in zip(plan["blocks"].tolist(), plan["sizes"].tolist(), strict=True):
            found: dict[str, Tensor] = {}
            for part in self.trainer.chunks(self._places(plan["clients"][start : start + size])):
                at = slice(start + part.start, start + part.stop)
                args = (round, received, broadcast, method, failed)
                clients = plan["clients"][at]
                for who, each in self._evaluate_chunk(clients, plan["counts"][at], *args):
                    values[at][np.isin(clients, who)] = self._values(each)
                    for name, rows in each.items():
                        value = rows.sum(0)
                        found[name] = found[name] + value if name in found else value
            for name, value in found.items():
                sums.setdefault(name, []).append(value)
                blocks.setdefault(name, []).append(block)
            start += size
        return messages.pack(
            {
                "round": round,
                "failed": failed,
                "seconds": time.perf_counter() - started,
                "tasks": [task.name for task in self.problem.tasks],
            },
            sums={name: torch.stack(parts) for name, parts in sums.items()},
            blocks={name: np.array(ids) for name, ids in blocks.items()},
            values={"values": values},
        )

    def _values(self, each: Mapping[str, Tensor]) -> np.ndarray:
        """Return ``[clients, tasks]`` float32, the clients' own test metrics; NaN: undefined."""
        rows = len(next(iter(each.values())))
        undefined = torch.full((rows,), torch.nan)
        columns = [
            task.metric_fn.each(each[name]) if (name := f"test/{task.name}") in each else undefined
            for task in self.problem.tasks
        ]
        return torch.stack([column.float() for column in columns], 1).numpy()

    def _evaluate_chunk(
        self,
        clients: np.ndarray,
        counts: np.ndarray,
        round: int,
        received: Tensor,
        broadcast: Mapping[str, Tensor],
        method: LocalMethod,
        failed: list[dict[str, Any]],
    ) -> list[tuple[np.ndarray, dict[str, Tensor]]]:
        """Evaluate clients in one job; where that fails, one by one, and note who ``failed``.

        Returns:
            The ids ``[n]`` of clients, and what :meth:`Trainer.evaluate` says of them.
        """
        try:
            cohort = self.trainer.cohort(self._places(clients), clients)

            def evaluate() -> dict[str, Tensor]:
                private = self._private(clients, counts, cohort.tasks, received, method)
                shared = received.expand(len(clients), -1)
                job = self.trainer.job(cohort, round, received, broadcast, shared, private)
                # A method may train to evaluate, and draw random numbers as it does.
                return self.trainer.evaluate(cohort, *method.personal(job))

            seeds = self._seeds(Purpose.PERSONALISATION, round, clients)
            return [(clients, self.evaluation.run(seeds, evaluate))]
        except Exception as error:  # a client's data or model may raise anything
            if not isinstance(error, UserError):
                log.exception("round %s: evaluation failed", round)
            if len(clients) == 1:
                failed.append({"client": int(clients[0]), "reason": _reason(error)})
                return []
        rest = (round, received, broadcast, method, failed)
        return [
            done
            for i in range(len(clients))
            for done in self._evaluate_chunk(clients[i : i + 1], counts[i : i + 1], *rest)
        ]

    def _seeds(self, purpose: Purpose, round: int, clients: np.ndarray) -> list[int]:
        return derive(self.config.seed, purpose, round, clients).tolist()

    @property
    def _learnt(self) -> int:
        """Number P of shared parameters, which come before the shared buffers."""
        return self.trainer.layout.parameters.size

    @property
    def _compressed(self) -> bool:
        return self.config.strategy.compression.name != "none"

    def _places(self, clients: np.ndarray) -> np.ndarray:
        """Return positions in the data of client ids."""
        if self.places is None:
            return clients
        return np.array([self.places[int(c)] for c in clients], np.int64)

    def _private(
        self,
        clients: np.ndarray,
        counts: np.ndarray,
        tasks: Any,
        received: Tensor,
        method: LocalMethod,
    ) -> dict[str, Tensor]:
        return self.state.take(clients, counts, lambda: self.trainer.fresh(tasks, method, received))

    def _begin(self, request: Mapping[str, Any]) -> None:
        generation = int(request["generation"])
        if self.store and generation > self.generation:
            self.store.begin(generation, int(request["resumed_from"]))
            self.state.forget()  # it may be of rounds that the run will do again
        self.generation = max(generation, self.generation)

    def _method(self, request: Mapping[str, Any]) -> LocalMethod:
        key = f"{request['method']} {request['method_options']}"
        if key not in self.methods:
            self.methods[key] = make_method(request["method"], request["method_options"])
        return self.methods[key]

    def _backbone(self, message: Message) -> Tensor:
        arrays = messages.arrays(message, "backbone")
        layout = self.trainer.layout
        for name, shape in layout.shapes.items():
            if name not in arrays or arrays[name].shape != shape:
                has = arrays[name].shape if name in arrays else "nothing"
                raise UserError(
                    f"the server's backbone has {has} for {name!r}, this node's {shape}: "
                    "give both the same model and data settings"
                )
        return layout.flat({n: to_tensor(a) for n, a in arrays.items()}).to(self.trainer.device)

    def _broadcast(self, message: Message) -> dict[str, Tensor]:
        found = messages.arrays(message, "broadcast")
        return {n: to_tensor(a).to(self.trainer.device) for n, a in found.items()}

    def _plan(self, message: Message) -> dict[str, np.ndarray]:
        plan = messages.arrays(message, "plan")
        if self.places is not None:
            strangers = [int(c) for c in plan["clients"] if int(c) not in self.places]
            if strangers:
                raise UserError(f"asked for clients {strangers} that do not live on this node")
        return plan


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


class _Trained:
    """What a chunk of clients gives."""

    def __init__(
        self,
        clients: np.ndarray,
        update: Tensor,
        good: np.ndarray,
        examples: np.ndarray,
        steps: np.ndarray,
        work: np.ndarray,
        losses: np.ndarray,
        extras: dict[str, Tensor],
        payload: dict[str, Tensor],
        sent: int,
        reason: str,
    ):
        self.clients, self.update, self.good = clients, update, good
        self.examples, self.steps, self.work, self.losses = examples, steps, work, losses
        self.extras, self.payload, self.sent, self.reason = extras, payload, sent, reason

    @classmethod
    def failure(cls, clients: np.ndarray, reason: str, tasks: int) -> _Trained:
        zero = np.zeros(len(clients), np.int64)
        losses = np.full((len(clients), tasks), np.nan, np.float32)
        bad = np.zeros(len(clients), bool)
        return cls(clients, torch.zeros(0), bad, zero, zero, zero, losses, {}, {}, 0, reason)


class _Collected:
    """The rows of a reply, filled chunk by chunk."""

    def __init__(self, clients: int, tasks: int):
        self.clients = np.zeros(clients, np.int64)
        self.good = np.zeros(clients, bool)
        self.examples = np.zeros(clients, np.int64)
        self.steps = np.zeros(clients, np.int64)
        self.work = np.zeros(clients, np.int64)
        self.losses = np.full((clients, tasks), np.nan, np.float32)
        self.failed: list[dict[str, Any]] = []
        self.bytes = 0
        self._extras: dict[str, list[tuple[np.ndarray, Tensor]]] = {}

    def add(self, where: np.ndarray, done: _Trained) -> None:
        self.clients[where], self.good[where] = done.clients, done.good
        self.examples[where], self.steps[where] = done.examples, done.steps
        self.work[where], self.losses[where] = done.work, done.losses
        self.bytes = max(self.bytes, done.sent)
        reason = done.reason or "its update is not finite; lower the learning rate"
        self.failed += [{"client": int(c), "reason": reason} for c in done.clients[~done.good]]
        for name, values in done.extras.items():
            self._extras.setdefault(name, []).append((where, values))

    def report(self) -> dict[str, np.ndarray]:
        return {
            "clients": self.clients,
            "good": self.good,
            "examples": self.examples,
            "steps": self.steps,
            "work": self.work,
            "losses": self.losses,
        }

    def extras(self) -> dict[str, np.ndarray]:
        found = {}
        for name, parts in self._extras.items():
            first = parts[0][1].cpu().numpy()
            found[name] = np.zeros((len(self.clients), *first.shape[1:]), first.dtype)
            for where, values in parts:
                found[name][where] = values.cpu().numpy()
        return found
