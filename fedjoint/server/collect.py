"""Replies of a training round -> updates; everything a node sends is checked here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from fedjoint._util.wording import plain
from fedjoint.errors import UserError
from fedjoint.protocol.arrays import to_tensor
from fedjoint.protocol.elsewhere import AnyRows
from fedjoint.protocol.requests import Asked
from fedjoint.protocol.training import Terms, TrainReply
from fedjoint.runs.record import Failure
from fedjoint.server.columns import Columns, columns_of, joined
from fedjoint.server.outliers import believed, clipped, left_out
from fedjoint.server.part import Part
from fedjoint.server.pooling import pooled
from fedjoint.server.updates import Deviations, Updates, rough_inner_products


@dataclass
class Collector:
    """Gathers the replies of one round as they arrive.

    Attributes:
        terms: what replies have to be like.
        sample: ``[n]`` int64, ids of the clients that are compared with one another.
        failed: who failed and why.
        block_seconds: block -> seconds of training.
        fallback: why clients were not batched, or fewer at once, where they were not.
        parts: the replies that were in order.
        clipped: whose rows were scaled down, or whose losses do not count.
    """

    terms: Terms
    sample: np.ndarray
    failed: list[Failure] = field(default_factory=list)
    block_seconds: dict[int, float] = field(default_factory=dict)
    fallback: str | None = None
    parts: list[Part] = field(default_factory=list)
    clipped: list[Failure] = field(default_factory=list)

    def add(self, node: int, asked: Asked, message: Message) -> None:
        """Take one reply; a bad one is reported as failed, never raised."""
        if message.has_error():
            self.fail(node, message.error.reason or f"error {message.error.code}")
        elif any(part.node == node for part in self.parts):
            self.fail(node, "it replied twice; the first reply counts")
        else:
            try:
                self._add(node, asked, message)
            except UserError as error:
                self.fail(node, str(error), fault=True)
            except Exception as error:  # whatever a forged reply may provoke
                self.fail(node, f"damaged reply: {type(error).__name__}: {error}", fault=True)

    def settle(self, clip: float = 0.0) -> None:
        """Leave out, and name, whoever sent other arrays than most clients, or nonsense.

        Call it when all replies are in. What is most does not depend on the order of arrival.

        Args:
            clip: most times the median length that a row may have; longer ones are scaled down.
                0: as they are.
        """
        votes: dict[tuple[Any, ...], tuple[int, int]] = {}
        for part in self.parts:
            count, node = votes.get(part.kind, (0, -part.node))
            votes[part.kind] = count + int(part.good.sum()), max(node, -part.node)
        if len(votes) > 1:
            most = max(votes, key=lambda kind: votes[kind])
            for part in self.parts:
                if part.kind != most and part.good.any():
                    why = "its clients sent other arrays than most clients did"
                    self.fail(part.node, why, fault=True)
            self.parts = [part for part in self.parts if part.kind == most]
        self.parts, failed = left_out(self.parts)
        self.failed += failed
        self.parts, self.clipped = believed(self.parts, self.terms.tasks)
        if clip:
            self.parts, scaled = clipped(self.parts, clip)
            self.clipped += scaled

    def reweigh(self, ids: np.ndarray, weights: np.ndarray) -> None:
        """Weigh those that trained anew: who did not may have had a part in the others' weights.

        Args:
            ids: ``[n]``, ascending, all that trained and maybe others.
            weights: ``[n]`` float64.
        """
        for place, part in enumerate(self.parts):
            own = part.asked.weights.copy()
            own[part.good] = weights[np.searchsorted(ids, part.asked.clients[part.good])]
            self.parts[place] = replace(part, asked=replace(part.asked, weights=own))

    def fail(self, node: int, reason: str, *, fault: bool = False) -> None:
        """Note that a whole node failed, by what nobody may send or otherwise."""
        self.failed.append(Failure(None, node, plain(reason), fault=fault))

    def _add(self, node: int, asked: Asked, message: Message) -> None:
        sampled = np.isin(asked.clients, self.sample)
        reply = TrainReply.unpack(message, asked, sampled, self.terms)
        part = Part(node, asked, reply, self.terms.reduce)
        # Nothing below fails: a reply counts in full or not at all.
        self.failed += _failures(part)
        self.fallback = plain(reply.fallback) if reply.fallback else self.fallback
        for block, seconds in zip(asked.blocks.tolist(), reply.block_seconds.tolist(), strict=True):
            self.block_seconds[block] = self.block_seconds.get(block, 0.0) + seconds
        self.parts.append(part)

    @property
    def mass(self) -> float:
        """The weight of the clients that trained, which :meth:`updates` makes one."""
        return float(self._columns()[0].weights.sum()) if self.parts else 0.0

    @property
    def node_seconds(self) -> float:
        """Seconds that the slowest node took."""
        taken: dict[int, float] = {}
        for part in self.parts:
            taken[part.node] = taken.get(part.node, 0.0) + part.reply.seconds
        return max(taken.values(), default=0.0)

    @property
    def work_seconds(self) -> float:
        """Seconds that all nodes took together."""
        return sum(part.reply.seconds for part in self.parts)

    @property
    def bytes_up(self) -> int:
        """Bytes that the clients sent, as if each sent its own update and deviations."""
        return sum(part.bytes_up for part in self.parts)

    @property
    def trained(self) -> np.ndarray:
        """``[n]`` int64 ids of the clients that trained, ascending."""
        found = [part.asked.clients[part.good] for part in self.parts]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)

    @property
    def work(self) -> int:
        """Gradients that the clients that trained computed, all together."""
        return sum(int(part.reply.reports.work[part.good].sum()) for part in self.parts)

    def client_losses(self) -> np.ndarray:
        """``[n]`` float32, mean loss over its tasks of each client of :attr:`trained`; or NaN."""
        if not self.parts:
            return np.zeros(0, np.float32)
        rows = np.concatenate([part.reply.reports.losses[part.good] for part in self.parts])
        rows, known = rows.astype(float), np.isfinite(rows)
        sums, counted = np.where(known, rows, 0).sum(1), known.sum(1)
        means = np.where(counted > 0, sums / np.maximum(counted, 1), np.nan)
        order = np.argsort(np.concatenate([part.asked.clients[part.good] for part in self.parts]))
        return means[order].astype(np.float32)

    def losses(self) -> tuple[float | None, dict[str, float]]:
        """Return the mean loss over the examples trained on, all tasks together and for each."""
        if not self.parts:
            return None, {}
        # In the order of the clients, for a sum that does not depend on arrival.
        reports = [part.reply.reports for part in self.parts]
        order = np.argsort(np.concatenate([each.clients for each in reports]))
        losses = np.concatenate([each.losses for each in reports])[order].astype(float)
        weights = np.concatenate([each.examples * each.good for each in reports])[order]
        known = np.isfinite(losses)
        mass = (weights[:, None] * known).sum(0)
        sums = (weights[:, None] * np.where(known, losses, 0)).sum(0)
        each = {
            name: float(sums[t] / mass[t]) for t, name in enumerate(self.terms.tasks) if mass[t] > 0
        }
        total = weights[known.any(1)].sum()
        return (float(sums.sum() / total) if total > 0 else None), each

    def updates(self, backbone: Tensor, round: int) -> Updates:
        """Stack what arrived, sorted by client id; of means of blocks, those alike are one row.

        Args:
            backbone: ``[P]`` the parameters that the clients received.
            round: the round.

        Raises:
            LostError: a machine died with rows of its own.
        """
        found, order = self._columns()
        if self.terms.reduce:
            found, matrix, deviations = pooled(self.parts, found, order)
        else:
            matrix, deviations = self._rows(order), self._deviations(order)
        extras: dict[str, list[np.ndarray]] = {}
        for part in self.parts if not self.terms.reduce else ():
            for name, values in part.extras.items():
                extras.setdefault(name, []).append(values[part.good])

        return Updates(
            matrix=matrix,
            weights=torch.from_numpy(found.shares),
            examples=torch.from_numpy(found.examples),
            clients=torch.from_numpy(found.keys),
            tasks=torch.from_numpy(found.tasks),
            task_names=self.terms.tasks,
            steps=torch.from_numpy(found.mean_steps),
            backbone=backbone,
            layout=self.terms.layout.parameters,
            round=round,
            extras={name: _stacked(parts, order) for name, parts in extras.items()},
            rates=None if found.rates is None else torch.from_numpy(found.rates),
            received=torch.from_numpy(found.received),
            deviations=deviations,
        )

    def _rows(self, order: np.ndarray) -> Tensor:
        return _stacked([self._kept(part, _here(part.reply.rows)) for part in self.parts], order)

    def _deviations(self, order: np.ndarray) -> Deviations | None:
        """Stack the deviations of single tasks, in the order of the rows and of their tasks."""
        if not self.terms.deviations:
            return None
        found = [part.reply.apart for part in self.parts]
        counts = [int(part.kept.sum()) for part in self.parts]
        starts, place = np.cumsum(counts) - counts, np.argsort(order)
        parts = [(each, start) for each, start in zip(found, starts, strict=True) if each]
        owners = np.concatenate([place[start + each.seats.owners] for each, start in parts])
        tasks = np.concatenate([each.seats.tasks for each, _ in parts])
        rests = np.concatenate([each.seats.rests for each, _ in parts])
        by_task = np.lexsort((tasks, owners))
        return Deviations(
            _stacked([_here(each.rows) for each, _ in parts], by_task),
            *(torch.from_numpy(column[by_task]) for column in (owners, tasks, rests)),
        )

    def buffers(self) -> tuple[Tensor, Tensor]:
        """Return ``[rows, B]`` moves of the shared buffers, and ``[rows]`` what they weigh.

        The weights sum to one. A row is of a client, or of a block.
        """
        found, order = self._columns()
        rows = [self._kept(part, part.reply.buffers) for part in self.parts]
        return _stacked(rows, order), torch.from_numpy(found.shares)

    def compared(self, updates: Updates) -> tuple[Tensor, Tensor]:
        """Return the ids ``[n]`` of the sampled clients that trained, and their Gram matrix.

        Args:
            updates: those of :meth:`updates`.

        Returns:
            Ids, ascending, and ``[n, n]`` float64, the inner products of their updates.
        """
        if not self.terms.reduce:
            at = torch.isin(updates.clients, torch.from_numpy(self.sample)).nonzero().squeeze(1)
            return updates.clients[at], updates.rough_inner_products(at)
        found, rows = self.sampled_rows()
        return found, rough_inner_products(rows)

    def sampled_rows(self) -> tuple[Tensor, Tensor]:
        """Return ids ``[n]``, ascending, and updates ``[n, P]`` of the sampled clients.

        Only where replies hold means of blocks.
        """
        ids, parts = [], []
        for part in self.parts:
            sampled = np.isin(part.asked.clients, self.sample)
            good = part.good[sampled]
            assert part.reply.sample is not None, "clients that share nothing have no updates"
            ids.append(part.asked.clients[sampled][good])
            parts.append(part.reply.sample[good])
        found = np.concatenate(ids)
        order = np.argsort(found)
        return torch.from_numpy(found[order]), _stacked(parts, order)

    def within(self) -> Tensor:
        """``[n, tasks, tasks]`` float64, how the tasks of each sampled client agree, by client id.

        Inner products of their gradients, NaN where unknown.
        """
        ids, parts = [np.zeros(0, np.int64)], [np.zeros((0, *[len(self.terms.tasks)] * 2))]
        for part in self.parts:
            if part.reply.within is not None:
                ids.append(part.asked.clients[np.isin(part.asked.clients, self.sample)])
                parts.append(part.reply.within)
        return torch.from_numpy(np.concatenate(parts)[np.argsort(np.concatenate(ids))])

    def _columns(self) -> tuple[Columns, np.ndarray]:
        return joined([columns_of(part) for part in self.parts])

    def _kept(self, part: Part, rows: np.ndarray | None) -> np.ndarray:
        """Return the rows of a reply that count."""
        assert rows is not None, "clients that share nothing have no updates"
        return rows if part.kept.all() else rows[part.kept]


def together(collectors: Iterable[Collector]) -> Collector:
    """Return what all groups of clients replied, for what does not ask for their updates."""
    every = list(collectors)
    return Collector(
        every[0].terms,
        every[0].sample,
        failed=[failure for each in every for failure in each.failed],
        block_seconds={b: s for each in every for b, s in each.block_seconds.items()},
        fallback="; ".join(dict.fromkeys(each.fallback for each in every if each.fallback)) or None,
        parts=[part for each in every for part in each.parts],
        clipped=[failure for each in every for failure in each.clipped],
    )


def _here(rows: AnyRows | None) -> np.ndarray:
    assert isinstance(rows, np.ndarray), "only means of blocks are elsewhere"
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


def _failures(part: Part) -> list[Failure]:
    """Return one failure for each client that did not train, with the reason if the node says."""
    reasons = {failure.client: plain(failure.reason) for failure in part.reply.failed}
    return [
        Failure(client, part.node, reasons.get(client, "the node gives no reason"))
        for client in part.asked.clients[~part.good].tolist()
    ]
