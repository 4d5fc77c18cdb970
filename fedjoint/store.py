"""Private state of clients: heads and whatever else never travels."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedjoint.errors import UserError

Tensors = dict[str, Tensor]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    client INTEGER, round INTEGER, tensors BLOB NOT NULL, PRIMARY KEY (client, round)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class StateStore:
    """One SQLite file with the state of every client after the rounds that still matter.

    Several processes may use the file at once.

    Args:
        path: the file; made where it is absent.

    Raises:
        UserError: the file is no such store.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=NORMAL")
            self.db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: not a store of private state: {error}") from None

    def write(self, states: Iterable[tuple[int, int, Mapping[str, Tensor]]]) -> None:
        """Write ``(client, round, tensors)`` in one transaction."""
        rows = [
            (client, round, save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}))
            for client, round, tensors in states
        ]
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", rows)
        self.db.execute("COMMIT")

    def read(self, clients: Sequence[int], before: int) -> dict[int, Tensors]:
        """Return each client's newest state from a round before ``before``; absent if none.

        Raises:
            UserError: a row is damaged.
        """
        found = {}
        for client in clients:
            row = self.db.execute(
                "SELECT tensors FROM state WHERE client = ? AND round < ? "
                "ORDER BY round DESC LIMIT 1",
                (int(client), before),
            ).fetchone()
            if row:
                try:
                    found[int(client)] = load(row[0])
                except SafetensorError as error:
                    raise UserError(
                        f"{self.path}: the state of client {client} is damaged: {error}"
                    ) from None
        return found

    def clients(self) -> list[int]:
        """Return the ids of the clients with state, ascending."""
        rows = self.db.execute("SELECT DISTINCT client FROM state ORDER BY client")
        return [row[0] for row in rows]

    def prune(self, durable: int) -> None:
        """Delete what no resumption can need: all but the newest row up to round ``durable``."""
        self.db.execute(
            "DELETE FROM state WHERE round < (SELECT MAX(round) FROM state AS newer "
            "WHERE newer.client = state.client AND newer.round <= ?)",
            (durable,),
        )

    def begin(self, generation: int, resumed_from: int) -> None:
        """Forget, once per resumption, what was written after the round resumed from."""
        self.db.execute("BEGIN IMMEDIATE")
        row = self.db.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
        if row is None or row[0] < generation:
            if generation:
                self.db.execute("DELETE FROM state WHERE round > ?", (resumed_from,))
            self.db.execute("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", (generation,))
        self.db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self.db.close()


class _Group:
    """Clients whose state is stacked together."""

    def __init__(self, clients: np.ndarray, round: int, tensors: Tensors):
        self.clients, self.round, self.tensors = clients, round, tensors
        self.live = len(clients)
        self.dirty = True


class PrivateState:
    """A worker's cache over a store, in the stacks in which clients train.

    Args:
        store: where state goes that is flushed or pushed out; None keeps everything in memory.
        resident: clients kept in memory.
    """

    def __init__(self, store: StateStore | None, resident: int):
        self.store, self.resident = store, resident
        self.groups: OrderedDict[tuple[int, ...], _Group] = OrderedDict()
        self.where: dict[int, tuple[_Group, int]] = {}

    def take(
        self, clients: np.ndarray, before: int, fresh: Callable[[], Mapping[str, Tensor]]
    ) -> Tensors:
        """Return the clients' state before round ``before``, stacked: name -> ``[clients, ...]``.

        The tensors are the caller's to change, and then to :meth:`put`.

        Args:
            clients: ``[clients]`` ids; all have the same names.
            before: state from this round or later is not wanted.
            fresh: makes the state of a client that has none.
        """
        key = tuple(clients.tolist())
        group = self.groups.get(key)
        if group is not None and group.live == len(key) and group.round < before:
            self.groups.move_to_end(key)
            return {n: t.clone() for n, t in group.tensors.items()}
        rows: dict[int, Mapping[str, Tensor]] = {}
        for client in key:
            if client in self.where and self.where[client][0].round < before:
                found, row = self.where[client]
                rows[client] = {n: t[row] for n, t in found.tensors.items()}
        absent = [client for client in key if client not in rows]
        if self.store and absent:
            rows |= self.store.read(absent, before)
        new: Mapping[str, Tensor] | None = None
        for client in absent:
            if client not in rows:
                new = fresh() if new is None else new
                rows[client] = new
        return {name: torch.stack([rows[c][name] for c in key]) for name in rows[key[0]]}

    def put(self, clients: np.ndarray, round: int, tensors: Tensors) -> None:
        """Keep the clients' state after ``round``."""
        key = tuple(clients.tolist())
        group = _Group(clients, round, tensors)
        for client in key:
            if client in self.where:
                self._leave(client)
        self.groups[key] = group
        for row, client in enumerate(key):
            self.where[client] = group, row
        while self.store and len(self.where) > self.resident and len(self.groups) > 1:
            oldest = next(iter(self.groups))
            self._write([self.groups[oldest]])
            for client in oldest:
                if client in self.where and self.where[client][0] is self.groups[oldest]:
                    del self.where[client]
            del self.groups[oldest]

    def _leave(self, client: int) -> None:
        group, _ = self.where.pop(client)
        group.live -= 1
        key = tuple(group.clients.tolist())
        if not group.live and self.groups.get(key) is group:
            del self.groups[key]

    def _write(self, groups: Iterable[_Group]) -> None:
        if self.store is None:
            return
        self.store.write(
            (client, group.round, {n: t[row] for n, t in group.tensors.items()})
            for group in groups
            if group.dirty
            for row, client in enumerate(group.clients.tolist())
            if client in self.where and self.where[client][0] is group
        )
        for group in groups:
            group.dirty = False

    def flush(self) -> None:
        """Write everything that the store does not have."""
        self._write(list(self.groups.values()))

    def forget(self) -> None:
        """Drop what is in memory, once it is flushed."""
        self.flush()
        self.groups.clear()
        self.where.clear()
