"""What clients keep to themselves between rounds, on disk."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.seal import check_owner
from fedjoint.runs.states import TABLES, identity, pack_state, read_states

_PATIENCE = 30.0  # seconds to wait for another process's transaction


class StateStore:
    """The private state of a run's clients after each round, in one SQLite file.

    Any number of processes on one machine may use the file at once, each through its own
    ``StateStore`` (which one thread uses at a time). A process killed in the middle of a write
    leaves the file as it was before. The write-ahead log needs a local file system.

    Args:
        path: the file; made when it is not there.
        run: the run's id.

    Raises:
        UserError: the file is of another run; (any method) it cannot be used, or stays locked
            for 30 seconds.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self._run = path, run
        with self._errors():
            # SQLite's further files have the permissions of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            if theirs := identity(self._db):
                check_owner(path, theirs, run)
            self._use_log()
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                self._make_tables()

    def write(self, round: int, states: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Keep ``states`` (client -> name -> tensor) as of the end of ``round``: all or none."""
        rows = [(int(c), round, pack_state(self._run, c, round, s)) for c, s in states.items()]
        with self._errors(), self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", rows)

    def read(self, clients: Sequence[int], rounds: Sequence[int]) -> dict[int, dict[str, Tensor]]:
        """Return each client's state after the round that stands beside it in ``rounds``.

        Clients that have none of that round are left out.

        Raises:
            UserError: a client's state is damaged.
        """
        with self._errors():
            return read_states(self._db, self.path, self._run, clients, rounds)

    def fingerprint(self, client: int) -> str | None:
        """Return the fingerprint of the client's data as it was first loaded; None: never."""
        with self._errors():
            rows = self._db.execute("SELECT fingerprint FROM loaded WHERE client = ?", (client,))
            row = rows.fetchone()
        return None if row is None else str(row[0])

    def note_loaded(self, fingerprints: Mapping[int, str]) -> None:
        """Keep the fingerprints of the data of clients that were loaded, by client."""
        with self._errors(), self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO loaded VALUES (?, ?)", fingerprints.items())

    @property
    def chosen(self) -> str | None:
        """The ``local.path`` that was noted; None: none was."""
        with self._errors():
            row = self._db.execute("SELECT name FROM path").fetchone()
        return None if row is None else str(row[0])

    def note_chosen(self, name: str) -> None:
        """Keep the ``local.path`` of the run's clients here."""
        with self._errors(), self._transaction():
            self._db.execute("INSERT INTO path VALUES (?)", (name,))

    def settle(self, ledger: Ledger) -> None:
        """Delete the states of rounds that do not count."""
        with self._errors(), self._transaction(), self._counted(ledger):
            self._db.execute(
                "DELETE FROM state WHERE round > COALESCE((SELECT counted.round FROM counted "
                "WHERE counted.client = state.client), 0)"
            )

    def prune(self, durable: int, kept: Ledger) -> None:
        """Delete what no resume needs: all before each client's newest state up to ``durable``.

        Call :meth:`settle` first, so that the newest state is one that counts. All that was written
        then outlives a loss of power, as the checkpoint that is to follow does, and is in the file
        itself, so that a copy of it is whole.

        Args:
            durable: the round of the oldest checkpoint that a run may be resumed from.
            kept: rounds of clients whose state stays all the same.
        """
        with self._errors(), self._transaction(), self._counted(kept):
            self._db.execute(
                "DELETE FROM state WHERE round < (SELECT MAX(newer.round) FROM state AS newer "
                "WHERE newer.client = state.client AND newer.round <= ?) AND NOT EXISTS (SELECT 1 "
                "FROM counted WHERE counted.client = state.client AND counted.round = state.round)",
                (durable,),
            )
        with self._errors():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def begin(self, generation: int, resumed_from: int) -> None:
        """Forget the rounds that a resumed run will do again.

        Only the first call for a generation has an effect, so that every worker may call it.

        Args:
            generation: how often the run was resumed.
            resumed_from: the round of the checkpoint; later states are deleted.
        """
        with self._errors(), self._transaction():
            (known,) = self._db.execute("SELECT MAX(number) FROM generation").fetchone()
            if generation > (known or 0):
                self._db.execute("DELETE FROM state WHERE round > ?", (resumed_from,))
                self._db.execute("INSERT INTO generation VALUES (?)", (generation,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _counted(self, ledger: Ledger) -> Iterator[None]:
        """Have ``ledger`` in a table for what is asked inside."""
        rows = zip(ledger.clients.tolist(), ledger.rounds.tolist(), strict=True)
        self._db.execute("CREATE TEMP TABLE counted (client INTEGER PRIMARY KEY, round)")
        self._db.executemany("INSERT INTO counted VALUES (?, ?)", rows)
        yield
        self._db.execute("DROP TABLE counted")

    def _make_tables(self) -> None:
        for statement in TABLES:
            self._db.execute(statement)
        if identity(self._db) is None:
            if self._db.execute("SELECT 1 FROM state").fetchone():
                check_owner(self.path, None, self._run)
            self._db.execute("INSERT INTO identity VALUES (?)", (self._run,))
        check_owner(self.path, identity(self._db), self._run)

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
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"{self.path}: {error}; check that the folder is there, is writable and has "
                "space, and that the file is a run's state.sqlite"
            ) from None
