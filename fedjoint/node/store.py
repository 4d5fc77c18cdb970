"""What clients keep to themselves between rounds, on disk."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.tensors import DamagedError, pack, unpack

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

    def read(self, clients: Sequence[int], rounds: Sequence[int]) -> dict[int, dict[str, Tensor]]:
        """Return each client's state after the round that stands beside it in ``rounds``.

        Clients that have none of that round are left out.

        Raises:
            UserError: a client's state is damaged.
        """
        wanted = json.dumps([[int(c), int(r)] for c, r in zip(clients, rounds, strict=True)])
        with self._errors():
            found = self._db.execute(
                "SELECT client, state.round, data FROM state JOIN (SELECT "
                "json_extract(value, '$[0]') AS who, json_extract(value, '$[1]') AS round "
                "FROM json_each(?)) AS wanted ON client = who AND state.round = wanted.round",
                (wanted,),
            ).fetchall()
        states = {}
        for client, round, data in found:
            try:
                states[client] = unpack(data)[0]
            except DamagedError as error:
                raise UserError(
                    f"{self.path}: the state of client {client} after round {round} is damaged "
                    f"({error}); start a new run, or restore the file from a backup"
                ) from None
        return states

    def newest(self) -> dict[int, int]:
        """Return the round of each client's newest state, by client, in order."""
        with self._errors():
            rows = self._db.execute("SELECT client, MAX(round) FROM state GROUP BY client")
            return dict(sorted(rows.fetchall()))

    def settle(self, ledger: Ledger) -> None:
        """Delete the states of rounds that do not count."""
        rows = zip(ledger.clients.tolist(), ledger.rounds.tolist(), strict=True)
        with self._errors(), self._transaction():
            self._db.execute("CREATE TEMP TABLE counted (client INTEGER PRIMARY KEY, round)")
            self._db.executemany("INSERT INTO counted VALUES (?, ?)", rows)
            self._db.execute(
                "DELETE FROM state WHERE round > COALESCE((SELECT counted.round FROM counted "
                "WHERE counted.client = state.client), 0)"
            )
            self._db.execute("DROP TABLE counted")

    def prune(self, durable: int) -> None:
        """Delete what no resume needs: all before each client's newest state up to ``durable``.

        Call :meth:`settle` first, so that the newest state is one that counts.

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
