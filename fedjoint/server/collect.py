"""Replies of a training round -> updates; everything a node sends is checked here."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from fedjoint._util.wording import plain
from fedjoint.config.schema import CompressionConfig
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.protocol import messages
from fedjoint.protocol.arrays import to_tensor
from fedjoint.protocol.checks import MOST, counts, shaped
from fedjoint.protocol.compression import decode
from fedjoint.runs.record import Failure
from fedjoint.server.population import Asked
from fedjoint.server.updates import Updates, inner_products


@dataclass
class Part:
    """The checked reply of one node.

    Attributes:
        node: who sent it.
        asked: what it was asked.
        good: ``[n]`` bool, which of the clients trained.
        examples: ``[n]`` training examples.
        steps: ``[n]`` optimiser steps on the backbone.
        work: ``[n]`` gradients computed.
        losses: ``[n, tasks]`` float32, NaN where a client lacks the task.
        sent: bytes that one client sends.
        rows: ``[n, P]`` updates, or ``[b, P]`` means of blocks; None where clients share nothing.
        buffers: ``[n, B]`` or ``[b, B]``, by how much the shared buffers moved.
        extras: further ``[n, ...]`` arrays of the local method.
        sample: ``[m, P]`` updates of the sampled clients, where rows are means of blocks.
    """

    node: int
    asked: Asked
    good: np.ndarray
    examples: np.ndarray
    steps: np.ndarray
    work: np.ndarray
    losses: np.ndarray
    sent: int
    rows: np.ndarray | None
    buffers: np.ndarray | None
    extras: dict[str, np.ndarray]
    sample: np.ndarray | None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What clients sent, as far as it has to be alike to be stacked."""
        extras = {name: (str(e.dtype), e.shape[1:]) for name, e in self.extras.items()}
        return self.rows is not None, *sorted(extras.items())


@dataclass
class Collector:
    """Gathers the replies of one round as they arrive.

    Attributes:
        layout: of the P shared parameters and the B numbers of the shared buffers.
        task_names: all tasks.
        reduce: whether replies hold a mean per block rather than a row per client.
        sample: ``[n]`` int64, ids of the clients that are compared with one another.
        shares: whether the run's local method has clients send updates.
        compression: how they are to send them.
        failed: who failed and why.
        block_seconds: block -> seconds of training.
        fallback: why clients were trained one by one, where they were.
        node_seconds: seconds that the slowest node took.
        parts: the replies that were in order.
    """

    layout: Layout
    task_names: tuple[str, ...]
    reduce: bool
    sample: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    shares: bool = True
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    failed: list[Failure] = field(default_factory=list)
    block_seconds: dict[int, float] = field(default_factory=dict)
    fallback: str | None = None
    node_seconds: float = 0.0
    parts: list[Part] = field(default_factory=list)

    def add(self, node: int, asked: Asked, message: Message) -> None:
        """Take one reply; a bad one is reported as failed, never raised."""
        try:
            if message.has_error():
                raise UserError(message.error.reason or f"error {message.error.code}")
            if any(part.node == node for part in self.parts):
                raise UserError("it replied twice; the first reply counts")
            self._add(node, asked, message)
        except UserError as error:
            self.fail(node, str(error))
        except Exception as error:  # whatever a forged reply may provoke
            self.fail(node, f"damaged reply: {type(error).__name__}: {error}")

    def settle(self) -> None:
        """Fail the nodes whose clients sent other arrays than most clients did.

        Call it when all replies are in. What is most does not depend on the order of arrival.
        """
        votes: dict[tuple[Any, ...], tuple[int, int]] = {}
        for part in self.parts:
            count, node = votes.get(part.kind, (0, -part.node))
            votes[part.kind] = count + int(part.good.sum()), max(node, -part.node)
        if len(votes) > 1:
            most = max(votes, key=lambda kind: votes[kind])
            for part in self.parts:
                if part.kind != most and part.good.any():
                    self.fail(part.node, "its clients sent other arrays than most clients did")
            self.parts = [part for part in self.parts if part.kind == most]

    def fail(self, node: int, reason: str) -> None:
        """Note that a whole node failed."""
        self.failed.append(Failure(None, node, plain(reason)))

    def _add(self, node: int, asked: Asked, message: Message) -> None:
        config = messages.settings(message)
        report = messages.arrays(message, "report")
        count = len(asked.clients)
        good = shaped(report, "good", (count,), "b")
        if not np.array_equal(shaped(report, "clients", (count,), "iu")[good], asked.clients[good]):
            raise UserError("the reply is about other clients than were asked for")
        unknown = [name for name in config["tasks"] if name not in self.task_names]
        if unknown:
            raise UserError(f"the reply is about tasks that nobody has: {unknown}")
        if config["shares"] is not self.shares:
            raise UserError("its local method is not the run's: run one version on every machine")
        sent = config["bytes_per_client"]
        if type(sent) is not int or not 0 <= sent <= MOST:
            raise UserError(f"'bytes_per_client' is {plain(sent)}")
        own = [self.task_names.index(name) for name in config["tasks"]]
        losses = np.full((count, len(self.task_names)), np.nan, np.float32)
        losses[:, own] = shaped(report, "losses", (count, len(own)), "f")
        part = Part(
            node,
            asked,
            good,
            counts(report, "examples", count),
            counts(report, "steps", count),
            counts(report, "work", count),
            losses,
            sent,
            self._rows(asked, good, message) if self.shares else None,
            self._buffers(asked, good, message) if self.shares else None,
            _extras(good, message),
            self._sample(asked, good, message) if self.shares and self.reduce else None,
        )
        seconds = shaped(report, "block_seconds", asked.blocks.shape, "f")
        taken = float(config["seconds"])
        if not (0 <= taken <= MOST and (seconds >= 0).all() and (seconds <= MOST).all()):
            raise UserError("a time is negative, or not finite")
        failed = failures(node, asked.clients[~good], config["failed"])
        # Nothing below fails: a reply counts in full or not at all.
        self.failed += failed
        self.fallback = config.get("fallback") or self.fallback
        self.node_seconds = max(self.node_seconds, taken)
        self.block_seconds |= dict(zip(asked.blocks.tolist(), seconds.tolist(), strict=True))
        self.parts.append(part)

    def _rows(self, asked: Asked, good: np.ndarray, message: Message) -> np.ndarray:
        """Return the checked updates; rows of clients that did not train are of no use."""
        updates, size = messages.arrays(message, "updates"), self.layout.parameters.size
        used = self._used(asked, good)
        if not good.any():
            return np.zeros((len(used), size), np.float32)
        if self.compression.name != "none":
            payload = {n.removeprefix("payload."): to_tensor(a) for n, a in updates.items()}
            found = decode(payload, int(good.sum()), size, self.compression).numpy()
            rows = np.zeros((len(good), size), np.float32)
            rows[good] = shaped({"updates": found}, "updates", (int(good.sum()), size), "f")
        else:
            rows = shaped(updates, "updates", (len(used), size), "f")
        return _finite("an update", rows, used)

    def _buffers(self, asked: Asked, good: np.ndarray, message: Message) -> np.ndarray:
        """Return the checked changes of the shared buffers, ``[rows, B]``."""
        used, size = self._used(asked, good), self.layout.size - self.layout.parameters.size
        if not size or not good.any():
            return np.zeros((len(used), size), np.float32)
        rows = shaped(messages.arrays(message, "buffers"), "buffers", (len(used), size), "f")
        return _finite("a change of buffers", rows, used)

    def _sample(self, asked: Asked, good: np.ndarray, message: Message) -> np.ndarray:
        """Return the checked updates of the sampled clients, ``[m, P]``."""
        used = good[np.isin(asked.clients, self.sample)]
        shape = len(used), self.layout.parameters.size
        if not used.any():
            return np.zeros(shape, np.float32)
        rows = shaped(messages.arrays(message, "sample"), "sample", shape, "f")
        return _finite("a sampled update", rows, used)

    def _used(self, asked: Asked, good: np.ndarray) -> np.ndarray:
        """Say which rows of a reply count: those of clients that trained, or of their blocks."""
        if not self.reduce:
            return good
        block = np.repeat(np.arange(len(asked.blocks)), asked.sizes)
        return np.bincount(block, good, len(asked.blocks)) > 0

    @property
    def bytes_up(self) -> int:
        """Bytes that the clients sent, as if each sent its own update."""
        return sum(part.sent * int(part.good.sum()) for part in self.parts)

    @property
    def trained(self) -> np.ndarray:
        """``[n]`` int64 ids of the clients that trained, ascending."""
        found = [part.asked.clients[part.good] for part in self.parts]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)

    @property
    def work(self) -> int:
        """Gradients that the clients that trained computed, all together."""
        return sum(int(part.work[part.good].sum()) for part in self.parts)

    def losses(self) -> tuple[float | None, dict[str, float]]:
        """Return the mean loss over the examples trained on, all tasks together and for each."""
        if not self.parts:
            return None, {}
        # In the order of the clients, for a sum that does not depend on arrival.
        order = np.argsort(np.concatenate([part.asked.clients for part in self.parts]))
        losses = np.concatenate([part.losses for part in self.parts])[order].astype(float)
        weights = np.concatenate([part.examples * part.good for part in self.parts])[order]
        known = np.isfinite(losses)
        mass = (weights[:, None] * known).sum(0)
        sums = (weights[:, None] * np.where(known, losses, 0)).sum(0)
        each = {
            name: float(sums[t] / mass[t]) for t, name in enumerate(self.task_names) if mass[t] > 0
        }
        total = weights[known.any(1)].sum()
        return (float(sums.sum() / total) if total > 0 else None), each

    def updates(self, backbone: Tensor, round: int) -> Updates:
        """Stack what arrived, sorted by client id (or block).

        Args:
            backbone: ``[P]`` the parameters that the clients received.
            round: the round.
        """
        rows, fields = [], []
        extras: dict[str, list[np.ndarray]] = {}
        for part in self.parts:
            asked = part.asked
            assert part.rows is not None, "clients that share nothing have no updates"
            if self.reduce:
                bounds = np.concatenate([[0], np.cumsum(asked.sizes)])
                for b, (start, stop) in enumerate(itertools.pairwise(bounds)):
                    good = part.good[start:stop]
                    if not good.any():
                        continue
                    rows.append(part.rows[b : b + 1])
                    fields.append(
                        (
                            float(asked.weights[start:stop][good].sum()),
                            int(part.examples[start:stop][good].sum()),
                            int(round_mean(part.steps[start:stop][good])),
                            asked.tasks[start],
                        )
                    )
            else:
                good = np.flatnonzero(part.good)
                rows.append(part.rows if len(good) == len(part.good) else part.rows[good])
                fields += [
                    (
                        float(asked.weights[i]),
                        int(part.examples[i]),
                        int(part.steps[i]),
                        asked.tasks[i],
                    )
                    for i in good
                ]
                for name, values in part.extras.items():
                    extras.setdefault(name, []).append(values[good])
        keys, order = self._order()
        matrix = _stacked(rows, order)
        fields = [fields[i] for i in order]
        weights = torch.tensor([f[0] for f in fields], dtype=torch.float64)
        return Updates(
            matrix=matrix,
            weights=(weights / weights.sum()).float(),
            examples=torch.tensor([f[1] for f in fields]),
            clients=torch.from_numpy(keys[order]),
            tasks=torch.from_numpy(np.stack([f[3] for f in fields])),
            task_names=self.task_names,
            steps=torch.tensor([f[2] for f in fields]),
            backbone=backbone,
            layout=self.layout.parameters,
            round=round,
            extras={n: _stacked(parts, order) for n, parts in extras.items()},
        )

    def mean_buffers(self, weights: Tensor) -> Tensor:
        """``[B]``, the mean move of the shared buffers.

        Args:
            weights: ``[rows]``, those of :meth:`updates`.
        """
        rows = [
            part.buffers[self._used(part.asked, part.good)]
            for part in self.parts
            if part.buffers is not None
        ]
        return weights @ _stacked(rows, self._order()[1])

    def compared(self, updates: Updates) -> tuple[Tensor, Tensor]:
        """Return the ids ``[n]`` of the sampled clients that trained, and their Gram matrix.

        Args:
            updates: those of :meth:`updates`.

        Returns:
            Ids, ascending, and ``[n, n]`` float64, the inner products of their updates.
        """
        if not self.reduce:
            at = torch.isin(updates.clients, torch.from_numpy(self.sample)).nonzero().squeeze(1)
            return updates.clients[at], updates.inner_products(at)
        ids, parts = [], []
        for part in self.parts:
            sampled = np.isin(part.asked.clients, self.sample)
            good = part.good[sampled]
            assert part.sample is not None, "clients that share nothing have no updates"
            ids.append(part.asked.clients[sampled][good])
            parts.append(part.sample[good])
        found = np.concatenate(ids)
        order = np.argsort(found)
        rows = _stacked(parts, order)
        return torch.from_numpy(found[order]), inner_products(rows)

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the clients (or blocks) of the rows as they arrived, and what sorts them."""
        keys = np.concatenate(
            [
                (part.asked.blocks if self.reduce else part.asked.clients)[
                    self._used(part.asked, part.good)
                ]
                for part in self.parts
            ]
        ).astype(np.int64)
        return keys, np.argsort(keys, kind="stable")


def _finite(what: str, rows: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return ``rows`` if they are float32, and finite where they are used."""
    if rows.dtype != np.float32:
        raise UserError(f"{what} is {rows.dtype}, not float32")
    norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    if not np.isfinite(norms[used]).all():
        raise UserError(f"{what} is not finite")
    return rows


def _stacked(parts: list[np.ndarray], order: np.ndarray) -> Tensor:
    """Concatenate ``parts`` and put their rows in ``order``, with one copy."""
    count = sum(len(part) for part in parts)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    out = torch.empty((count, *parts[0].shape[1:]), dtype=to_tensor(parts[0][:0]).dtype)
    start = 0
    for part in parts:
        out.numpy()[place[start : start + len(part)]] = part
        start += len(part)
    return out


def round_mean(steps: np.ndarray) -> int:
    """Return the mean number of steps, to the nearest whole one."""
    return int(np.floor(steps.mean() + 0.5))


def _extras(good: np.ndarray, message: Message) -> dict[str, np.ndarray]:
    """Return the checked extras; without a client that trained, there are none."""
    extras = messages.arrays(message, "extras") if good.any() else {}
    for name, values in extras.items():
        shaped(extras, name, (len(good), *values.shape[1:]), "biuf")
        to_tensor(values[:0])  # PyTorch knows the type
        if not np.isfinite(values[good]).all():
            raise UserError(f"{name!r} is not finite")
    return extras


def failures(node: int, clients: np.ndarray, told: Any) -> list[Failure]:
    """Return one failure for each client, with the reason where the node tells it.

    Args:
        node: its number.
        clients: ``[n]`` ids.
        told: what it says: a list of dicts with ``client`` and ``reason``.
    """
    reasons = {int(failure["client"]): plain(failure["reason"]) for failure in told}
    return [
        Failure(client, node, reasons.get(client, "the node gives no reason"))
        for client in clients.tolist()
    ]
