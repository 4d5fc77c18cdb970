"""The clients' private state in a run's ``state.sqlite``, read without a trace."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TypeVar
from urllib.parse import quote

import numpy as np
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.runs.files import writing
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.seal import check_owner
from fedjoint.runs.tensors import DamagedError, pack, unpack

#: What a state.sqlite has: which run it is of, and how often that was resumed; the state of
#: clients after rounds; fingerprints of the data of the clients that were loaded; the local.path
#: that a deployed node has chosen.
TABLES = (
    "CREATE TABLE IF NOT EXISTS identity (run TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS generation (number INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS state (client INTEGER NOT NULL, round INTEGER NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (client, round))""",
    "CREATE TABLE IF NOT EXISTS loaded (client INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS path (name TEXT NOT NULL)",
)

_SOME = 1000  # clients whose state is read at once
_TRIES = 3  # times that a file is read which is written meanwhile

T = TypeVar("T")


class States:
    """A run's state file, as it is: nothing beside it is written, recovered or locked.

    Args:
        path: the file.
        run: the run's id.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self._run = path, run
        self._log = path.with_name(f"{path.name}-wal")
        self._copy: TemporaryDirectory[str] | None = None

    def newest(self) -> dict[int, int]:
        """Return the round of each client's newest state, by client, in order.

        Raises:
            UserError: the file is missing, damaged, of another run, or just being written.
        """
        rows = "SELECT client, MAX(round) FROM state GROUP BY client"
        return dict(sorted(self._ask(lambda db: db.execute(rows).fetchall())))

    def fingerprints(self) -> dict[int, str]:
        """Return the fingerprint of the data of each client that was loaded, by client.

        Raises:
            UserError: as :meth:`newest`.
        """
        rows = "SELECT client, fingerprint FROM loaded ORDER BY client"
        return dict(self._ask(lambda db: db.execute(rows).fetchall()))

    def read(self, clients: Sequence[int], rounds: Sequence[int]) -> dict[int, dict[str, Tensor]]:
        """Return each client's state after the round that stands beside it in ``rounds``.

        Raises:
            UserError: as :meth:`newest`; or a client's state is missing or damaged.
        """
        states = self._ask(lambda db: read_states(db, self.path, self._run, clients, rounds))
        for client, round in zip(clients, rounds, strict=True):
            if client not in states:
                raise UserError(
                    f"{self.path}: no state of client {client} after round {round}, which the run "
                    "counts; restore the file from a backup"
                )
        return states

    def check(self, ledger: Ledger) -> None:
        """Make sure that the state that counts of every client is here, whole and finite.

        Raises:
            UserError: it is not; the line names the client.
        """
        self._ask(lambda db: None)  # whose is it?
        for at in range(0, len(ledger.clients), _SOME):
            clients = ledger.clients[at : at + _SOME].tolist()
            states = self.read(clients, ledger.rounds[at : at + _SOME].tolist())
            for client, state in states.items():
                for name, tensor in state.items():
                    # A balance writes NaN for: not yet.
                    bad = tensor.isinf() if name.startswith("balance.") else ~tensor.isfinite()
                    if bad.any():
                        raise UserError(
                            f"{self.path}: {name!r} of client {client} is not finite; restore "
                            "the file from a backup"
                        )

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Answer from the file as it stands: again, where it was written meanwhile."""
        for _ in range(_TRIES):
            before = self._stamps()
            try:
                answer = self._try(question)
            except UserError:
                if before == self._stamps():
                    raise
            else:
                if before == self._stamps():
                    return answer
            self._copy = None
        raise UserError(f"{self.path}: just being written; wait until the run stands still")

    def _try(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with closing(sqlite3.connect(self._uri(), uri=True, isolation_level=None)) as db:
                if db.execute("SELECT 1 FROM sqlite_master").fetchone():  # not killed at its start
                    check_owner(self.path, identity(db), self._run)
                return question(db)
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: damaged: {error}; restore it from a backup") from None

    def _uri(self) -> str:
        """Return where SQLite is to read: the file, or a copy where a kill left a log beside it.

        SQLite writes the log into the file and removes it when it reads it.
        """
        if not self._log.exists() or not self._log.stat().st_size:
            return f"file:{quote(str(self.path.resolve()))}?immutable=1"
        if self._copy is None:
            with writing(Path(gettempdir())):
                self._copy = TemporaryDirectory()
                for path in (self.path, self._log):
                    shutil.copyfile(path, Path(self._copy.name) / path.name)
        return f"file:{quote(self._copy.name)}/{quote(self.path.name)}"

    def _stamps(self) -> list[tuple[int, int]]:
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file; restore it from a backup")
        found = [path.stat() for path in (self.path, self._log) if path.exists()]
        return [(stat.st_size, stat.st_mtime_ns) for stat in found if stat.st_size]


def identity(db: sqlite3.Connection) -> str | None:
    """Return the id of the run that a state file is of; None where it has none."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'identity'").fetchone():
        return None
    row = db.execute("SELECT run FROM identity").fetchone()
    return str(row[0]) if row else None


def pack_state(run: str, client: int, round: int, state: Mapping[str, Tensor]) -> bytes:
    """Return the state of a client after a round of the run with the id ``run``."""
    return pack(state, _whose(run, client, round))


def read_states(
    db: sqlite3.Connection, path: Path, run: str, clients: Sequence[int], rounds: Sequence[int]
) -> dict[int, dict[str, Tensor]]:
    """Return each client's state after the round that stands beside it in ``rounds``.

    Clients that have none of that round are left out.

    Args:
        db: a state file.
        path: of the file.
        run: the id of its run.
        clients: their ids.
        rounds: one per client.

    Raises:
        UserError: a client's state is damaged, or not its own.
    """
    wanted = json.dumps(np.stack([clients, rounds], 1).tolist() if len(clients) else [])
    rows = db.execute(
        "SELECT client, state.round, data FROM state JOIN (SELECT "
        "json_extract(value, '$[0]') AS who, json_extract(value, '$[1]') AS round "
        "FROM json_each(?)) AS wanted ON client = who AND state.round = wanted.round",
        (wanted,),
    )
    states = {}
    for client, round, data in rows.fetchall():
        try:
            states[client], whose = unpack(data)
            if whose != _whose(run, client, round):
                raise DamagedError(f"it is that of {whose}")
        except DamagedError as error:
            raise UserError(
                f"{path}: the state of client {client} after round {round} is damaged ({error}); "
                "start a new run, or restore the file from a backup"
            ) from None
    return states


def _whose(run: str, client: int, round: int) -> dict[str, str]:
    return {"run": run, "client": str(client), "round": str(round)}
