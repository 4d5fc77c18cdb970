"""What clients keep to themselves between rounds: on disk, and in a worker's memory."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.packing import DamagedError, pack, unpack

_PATIENCE = 30.0  # seconds to wait for another process's transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    client INTEGER NOT NULL,
    round INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (client, round)
);
CREATE TABLE IF NOT EXISTS run (generation INTEGER NOT NULL);
"""


class StateStore:
    """The private state of clients after each round, in one SQLite file.

    Any number of processes on one machine may use the file at once, each through its own
    ``StateStore`` (which one thread uses at a time). A process killed in the middle of a write
    leaves the file as it was before. The write-ahead log needs a local file system.

    Args:
        path: the file; made when it is not there.

    Raises:
        UserError: (any method) the file cannot be used, or stays locked for 30 seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            self._db = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._use_log()
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)

    def write(self, round: int, states: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Keep ``states`` (client -> name -> tensor) as of the end of ``round``: all or none."""
        rows = [(int(client), round, pack(state)) for client, state in states.items()]
        with self._errors(), self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", rows)

    def read(self, clients: Sequence[int], before: int) -> dict[int, dict[str, Tensor]]:
        """Return each client's newest state from a round below ``before``.

        Clients that have none are left out.

        Raises:
            UserError: a client's state is damaged.
        """
        with self._errors():
            # In SQLite, the other columns of a group come from the row that holds its maximum.
            rows = self._db.execute(
                "SELECT client, MAX(round), data FROM state WHERE round < ? AND client IN "
                "(SELECT value FROM json_each(?)) GROUP BY client",
                (before, json.dumps([int(client) for client in clients])),
            ).fetchall()
        states = {}
        for client, round, data in rows:
            try:
                states[client] = unpack(data)[0]
            except DamagedError as error:
                raise UserError(
                    f"{self.path}: the state of client {client} after round {round} is damaged "
                    f"({error}); start a new run, or restore the file from a backup"
                ) from None
        return states

    def prune(self, durable: int) -> None:
        """Forget what no resume needs: all before each client's newest state up to ``durable``.

        Args:
            durable: the round of the oldest checkpoint that a run may be resumed from.
        """
        with self._errors(), self._transaction():
            self._db.execute(
                "DELETE FROM state WHERE round < (SELECT MAX(newer.round) FROM state AS newer "
                "WHERE newer.client = state.client AND newer.round <= ?)",
                (durable,),
            )

    def begin(self, generation: int, resumed_from: int) -> None:
        """Forget the rounds that a resumed run will do again.

        Only the first call for a generation has an effect, so that every worker may call it.

        Args:
            generation: how often the run was resumed.
            resumed_from: the round of the checkpoint; later states are deleted.
        """
        with self._errors(), self._transaction():
            (known,) = self._db.execute("SELECT MAX(generation) FROM run").fetchone()
            if generation > (known or 0):
                self._db.execute("DELETE FROM state WHERE round > ?", (resumed_from,))
                self._db.execute("INSERT INTO run VALUES (?)", (generation,))

    def clients(self) -> list[int]:
        """Return the clients that have any state, in order."""
        with self._errors():
            rows = self._db.execute("SELECT DISTINCT client FROM state ORDER BY client")
            return [client for (client,) in rows]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _use_log(self) -> None:
        # SQLite does not wait for its lock here, unlike anywhere else.
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # Immediate: a transaction that first reads could not wait for the lock to write.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path}: {error}; check that the folder is there, is writable and has "
                "space, and that the file is a run's state.sqlite"
            ) from None


@dataclass(eq=False)
class _Group:
    """Clients that were put together, some of which may since have been put elsewhere.

    Attributes:
        clients: ids, one per row of ``tensors``.
        round: the round after which they were put.
        tensors: name -> ``[clients, ...]``.
        dirty: not in the store yet.
        size: how many were put.
        alive: how many are still here.
    """

    clients: list[int]
    round: int
    tensors: dict[str, Tensor]
    dirty: bool
    size: int
    alive: int

    @property
    def whole(self) -> bool:
        return self.alive == self.size


class PrivateState:
    """One worker's clients' private state, in memory, over an optional store.

    Tensors are kept as they are put: stacked over the clients of a job, on the job's device.

    Args:
        store: where state goes that is not kept; None: all of it is kept.
        resident: most clients kept; beyond it, the least recently used go to the store.
        device: where new stacks are made.
    """

    def __init__(
        self, store: StateStore | None, resident: int, device: torch.device | str = "cpu"
    ) -> None:
        self._store, self._resident, self._device = store, resident, torch.device(device)
        self._groups: OrderedDict[bytes, _Group] = OrderedDict()  # the least recently used first
        self._places: dict[int, tuple[_Group, int]] = {}

    def take(
        self, clients: np.ndarray, before: int, fresh: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return name -> ``[clients, ...]``, the newest state from a round below ``before``.

        The tensors are the caller's to change in place, and to :meth:`put` once its job is done;
        until then the state kept here is the old one, whatever becomes of the job.

        Args:
            clients: ``[clients]`` ids, all with the same names and shapes of state.
            before: the round about to be run.
            fresh: makes the state of one client that has none.

        Raises:
            UserError: stored state is damaged, or does not fit that of the other clients.
        """
        ids = np.asarray(clients, np.int64)
        group = self._groups.get(ids.tobytes())
        if group is not None and group.whole and group.round < before:
            self._groups.move_to_end(ids.tobytes())
            return {name: tensor.clone() for name, tensor in group.tensors.items()}
        return self._stack(ids.tolist(), before, fresh)

    def put(self, clients: np.ndarray, round: int, stacked: Mapping[str, Tensor]) -> None:
        """Keep ``stacked`` (name -> ``[clients, ...]``) as the state after ``round``.

        The tensors are kept without a copy: from now on, change them only after a ``take``.
        """
        ids = np.asarray(clients, np.int64)
        key = ids.tobytes()
        group = self._groups.get(key)
        if group is not None and group.whole:
            group.round, group.tensors, group.dirty = round, dict(stacked), True
            self._groups.move_to_end(key)
        else:
            own: list[int] = ids.tolist()
            self.forget(own)
            group = _Group(own, round, dict(stacked), True, len(own), len(own))
            self._groups[key] = group
            self._places |= {client: (group, row) for row, client in enumerate(own)}
        self._evict()

    def flush(self) -> None:
        """Write what the store does not have, as of the round in which it was put."""
        if self._store is not None:
            self._write(self._store, [group for group in self._groups.values() if group.dirty])

    def forget(self, clients: Sequence[int] | np.ndarray | None = None) -> None:
        """Drop ``clients`` (default: all) from memory, and their unwritten state with them."""
        if clients is None:
            self._groups.clear()
            self._places.clear()
            return
        left = set()
        for client in clients:
            place = self._places.pop(int(client), None)
            if place is not None:
                place[0].alive -= 1
                left.add(place[0])
        if left:
            self._groups = OrderedDict((k, g) for k, g in self._groups.items() if g.alive)
        for group in left:
            # So the memory in use is at most twice that of the clients kept.
            if 0 < group.alive < len(group.clients) / 2:
                self._compact(group)

    def _stack(
        self, ids: list[int], before: int, fresh: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Collect the state of ``ids`` from memory, the store and ``fresh``."""
        kept: dict[_Group, tuple[list[int], list[int]]] = {}
        absent = []
        for row, client in enumerate(ids):
            group, at = self._places.get(client, (None, -1))
            if group is not None and group.round < before:
                rows, places = kept.setdefault(group, ([], []))
                rows.append(row)
                places.append(at)
            else:
                absent.append(row)
        parts: list[tuple[list[int], Mapping[str, Tensor]]] = []
        for group, (rows, places) in kept.items():
            parts.append((rows, {name: t[places] for name, t in group.tensors.items()}))
        stored: dict[int, dict[str, Tensor]] = {}
        if self._store is not None and absent:
            stored = self._store.read([ids[row] for row in absent], before)
        for row in absent:
            if ids[row] in stored:
                parts.append(([row], {n: t[None] for n, t in stored[ids[row]].items()}))
        new = [row for row in absent if ids[row] not in stored]
        if new or not ids:
            state = fresh()
            parts.append((new, {n: t.expand(len(new), *t.shape) for n, t in state.items()}))
        return self._join(ids, parts)

    def _join(
        self, ids: list[int], parts: list[tuple[list[int], Mapping[str, Tensor]]]
    ) -> dict[str, Tensor]:
        """Stack ``parts``, each some rows of the result, on the device."""
        shapes = {name: t.shape[1:] for name, t in parts[0][1].items()}
        for rows, part in parts:
            if {name: t.shape[1:] for name, t in part.items()} != shapes:
                raise UserError(
                    f"the private state of client {ids[rows[0]]} does not fit that of client "
                    f"{ids[parts[0][0][0]]}; resume with the run's own configuration"
                )
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        index = torch.from_numpy(order).to(self._device)
        return {
            name: torch.cat([part[name].to(self._device) for _, part in parts])[index]
            for name in shapes
        }

    def _compact(self, group: _Group) -> None:
        rows = [
            row
            for row, client in enumerate(group.clients)
            if self._places.get(client, (None,))[0] is group
        ]
        group.clients = [group.clients[row] for row in rows]
        group.tensors = {name: t[rows] for name, t in group.tensors.items()}
        self._places |= {client: (group, row) for row, client in enumerate(group.clients)}

    def _evict(self) -> None:
        if self._store is None:
            return
        leaving, kept = [], len(self._places)
        for group in self._groups.values():
            if kept <= self._resident:
                break
            leaving.append(group)
            kept -= group.alive
        if leaving:
            self._write(self._store, [group for group in leaving if group.dirty])
            self.forget([client for group in leaving for client in self._members(group)])

    def _members(self, group: _Group) -> list[int]:
        return [c for c in group.clients if self._places.get(c, (None,))[0] is group]

    def _write(self, store: StateStore, groups: Sequence[_Group]) -> None:
        rounds: dict[int, dict[int, dict[str, Tensor]]] = {}
        for group in groups:
            rows = {name: t.cpu().unbind() for name, t in group.tensors.items()}
            states = rounds.setdefault(group.round, {})
            for client in self._members(group):
                row = self._places[client][1]
                states[client] = {name: t[row] for name, t in rows.items()}
        for round, states in rounds.items():
            store.write(round, states)
        for group in groups:
            group.dirty = False
