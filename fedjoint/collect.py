"""Replies of a training round -> updates; everything a node sends is checked here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from fedjoint import messages
from fedjoint.compression import decode
from fedjoint.errors import UserError
from fedjoint.layout import Layout
from fedjoint.records import to_tensor
from fedjoint.updates import Updates


@dataclass
class Asked:
    """What one node was asked to train.

    Attributes:
        clients: ``[n]`` int64 ids, block by block.
        weights: ``[n]`` float64, not normalised.
        blocks: ``[b]`` int64, numbers of the blocks.
        sizes: ``[b]`` int64, clients in each.
        tasks: ``[n, tasks]`` bool, of the clients.
    """

    clients: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray
    sizes: np.ndarray
    tasks: np.ndarray


@dataclass
class Collector:
    """Gathers the replies of one round as they arrive.

    Attributes:
        layout: of the P shared parameters.
        task_names: all tasks.
        reduce: whether replies hold a mean per block rather than a row per client.
        failed: who failed and why: ``{"client": id or None, "node": id, "reason": text}``.
        block_seconds: block -> seconds of training.
        bytes_up: bytes that the clients sent, as if each sent its own update.
    """

    layout: Layout
    task_names: tuple[str, ...]
    reduce: bool
    failed: list[dict[str, Any]] = field(default_factory=list)
    block_seconds: dict[int, float] = field(default_factory=dict)
    bytes_up: int = 0
    shares: bool = True
    fallback: str | None = None
    node_seconds: float = 0.0
    parts: list[dict[str, Any]] = field(default_factory=list)

    def add(self, node: int, asked: Asked, message: Message) -> None:
        """Take one reply; a bad one is reported as failed, never raised."""
        try:
            if message.has_error():
                raise UserError(message.error.reason or f"error {message.error.code}")
            self._add(node, asked, message)
        except (UserError, ValueError, KeyError, TypeError) as error:
            reason = str(error) or type(error).__name__
            self.failed.append({"client": None, "node": node, "reason": reason})

    def _add(self, node: int, asked: Asked, message: Message) -> None:
        config = messages.settings(message)
        report = messages.arrays(message, "report")
        updates = messages.arrays(message, "updates")
        extras = messages.arrays(message, "extras")
        count, size = len(asked.clients), self.layout.size
        if not np.array_equal(report["clients"][report["good"]], asked.clients[report["good"]]):
            raise UserError("the reply is about other clients than were asked for")
        own = [self.task_names.index(name) for name in config["tasks"]]
        losses = np.full((count, len(self.task_names)), np.nan, np.float32)
        losses[:, own] = _shaped(report, "losses", (count, len(own)))
        good = _shaped(report, "good", (count,)).astype(bool)
        rows: np.ndarray | None = None
        if config["shares"]:
            if any(name.startswith("payload.") for name in updates):
                payload = {n.removeprefix("payload."): to_tensor(a) for n, a in updates.items()}
                rows = np.zeros((count, size), np.float32)
                rows[good] = decode(payload, size).numpy()
            else:
                expected = (len(asked.blocks) if self.reduce else count, size)
                rows = _shaped(updates, "updates", expected)
            if rows.dtype != np.float32:
                raise UserError(f"updates are {rows.dtype}, not float32")
            norms = (
                np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
                if rows.size
                else np.zeros(len(rows))
            )
            if not np.isfinite(norms).all():
                raise UserError("an update is not finite")
        self.failed += [{**failure, "node": node} for failure in config["failed"]]
        self.fallback = config.get("fallback") or self.fallback
        self.shares = self.shares and config["shares"]
        self.node_seconds = max(self.node_seconds, float(config["seconds"]))
        self.bytes_up += int(config["bytes_per_client"]) * int(good.sum())
        seconds = _shaped(report, "block_seconds", asked.blocks.shape)
        self.block_seconds |= dict(zip(asked.blocks.tolist(), seconds.tolist(), strict=True))
        self.parts.append(
            {
                "asked": asked,
                "rows": rows,
                "good": good,
                "examples": _shaped(report, "examples", (count,)),
                "steps": _shaped(report, "steps", (count,)),
                "losses": losses,
                "extras": extras,
            }
        )

    @property
    def trained(self) -> int:
        """Number of clients that trained."""
        return sum(int(part["good"].sum()) for part in self.parts)

    def ids(self) -> list[int]:
        """Return the clients that trained, ascending."""
        return sorted(int(c) for p in self.parts for c in p["asked"].clients[p["good"]])

    def losses(self) -> tuple[float | None, dict[str, float]]:
        """Return the mean local loss over examples, all tasks together and for each."""
        if not self.parts:
            return None, {}
        order = np.argsort(np.concatenate([part["asked"].clients for part in self.parts]))
        losses = np.concatenate([part["losses"] for part in self.parts])[order].astype(float)
        weights = np.concatenate([part["examples"] for part in self.parts])[order].astype(float)
        known = np.isfinite(losses)
        mass = (weights[:, None] * known).sum(0)
        sums = (weights[:, None] * np.where(known, losses, 0)).sum(0)
        each = {
            name: float(sums[t] / mass[t]) for t, name in enumerate(self.task_names) if mass[t] > 0
        }
        total = weights[known.any(1)].sum()
        return (float(sums.sum() / total) if total > 0 else None), each

    def updates(self, backbone: Tensor, round: int) -> Updates:
        """Stack what arrived, sorted by client id (or block)."""
        rows, keys, fields = [], [], []
        extras: dict[str, list[np.ndarray]] = {}
        for part in self.parts:
            asked: Asked = part["asked"]
            if self.reduce:
                bounds = np.concatenate([[0], np.cumsum(asked.sizes)])
                for b, (start, stop) in enumerate(itertools.pairwise(bounds)):
                    good = part["good"][start:stop]
                    if not good.any():
                        continue
                    rows.append(part["rows"][b : b + 1])
                    keys.append(int(asked.blocks[b]))
                    fields.append(
                        (
                            float(asked.weights[start:stop][good].sum()),
                            int(part["examples"][start:stop][good].sum()),
                            int(round_mean(part["steps"][start:stop][good])),
                            asked.tasks[start],
                        )
                    )
            else:
                good = np.flatnonzero(part["good"])
                rows.append(part["rows"] if len(good) == len(part["good"]) else part["rows"][good])
                keys += asked.clients[good].tolist()
                fields += [
                    (
                        float(asked.weights[i]),
                        int(part["examples"][i]),
                        int(part["steps"][i]),
                        asked.tasks[i],
                    )
                    for i in good
                ]
                for name, values in part["extras"].items():
                    extras.setdefault(name, []).append(values[good])
        order = np.argsort(np.array(keys), kind="stable")
        matrix = _stacked(rows, order)
        fields = [fields[i] for i in order]
        weights = torch.tensor([f[0] for f in fields], dtype=torch.float64)
        return Updates(
            matrix=matrix,
            weights=(weights / weights.sum()).float(),
            examples=torch.tensor([f[1] for f in fields]),
            clients=torch.tensor([keys[i] for i in order]),
            tasks=torch.from_numpy(np.stack([f[3] for f in fields])),
            task_names=self.task_names,
            steps=torch.tensor([f[2] for f in fields]),
            backbone=backbone,
            layout=self.layout,
            round=round,
            extras={n: _stacked(parts, order) for n, parts in extras.items()},
        )


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


def _shaped(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in arrays:
        raise UserError(f"the reply lacks {name!r}")
    if arrays[name].shape != shape:
        raise UserError(f"{name!r} has shape {arrays[name].shape}, expected {shape}")
    return arrays[name]
