"""``metrics.jsonl``: the records of a run's rounds, a line each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjoint.errors import UserError
from fedjoint.runs.files import csv_bytes, read_bytes, write_bytes, writing
from fedjoint.runs.plain import plain
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.seal import check_owner, parse, seal
from fedjoint.runs.tensors import DamagedError


class MetricsFile:
    """The records of the rounds, in order. Every line has the run's id and a checksum.

    Args:
        path: the file.
        run: the run's id.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self._run = path, run

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, record: RoundRecord) -> None:
        """Add a record; NaN and infinite numbers become null.

        Raises:
            UserError: the disk is full, or the file not writable.
        """
        with writing(self.path), self.path.open("ab") as file:
            file.write(self._line(record))

    def sync(self) -> None:
        """Have what was added outlive a loss of power.

        Raises:
            UserError: the disk is full.
        """
        with writing(self.path), self.path.open("ab") as file:
            os.fsync(file.fileno())

    def read(self) -> list[RoundRecord]:
        """Return the records; a last line that a crash left unfinished is dropped.

        Raises:
            UserError: the file is missing, or a line is missing, damaged or of another run.
        """
        *lines, _unfinished = read_bytes(self.path).split(b"\n")
        records: list[RoundRecord] = []
        for number, line in enumerate(lines, 1):
            record = self._record(number, line)
            # Round 0 is there where there is an evaluation before the first.
            due = records[-1].round + 1 if records else min(record.round, 1)
            if record.round != due:
                raise UserError(
                    f"{self.path}:{number}: it is the record of round {record.round}, not {due}; "
                    "restore the file from a backup"
                )
            records.append(record)
        return records

    def truncate(self, round: int) -> None:
        """Keep the records of rounds up to ``round`` alone; -1: none.

        Raises:
            UserError: the file is damaged, or the disk is full.
        """
        lines = [self._line(record) for record in self.read() if record.round <= round]
        write_bytes(self.path, b"".join(lines))

    def _line(self, record: RoundRecord) -> bytes:
        tree = {"run": self._run, **plain(record.to_json())}
        return (json.dumps(seal(tree), allow_nan=False) + "\n").encode()

    def _record(self, number: int, line: bytes) -> RoundRecord:
        try:
            tree = parse(line)
            run = tree.pop("run", None)
            check_owner(f"{self.path}:{number}", run, self._run)
            return RoundRecord.from_json(tree)
        except DamagedError as error:
            raise UserError(
                f"{self.path}:{number}: damaged: {error}; restore the file from a backup"
            ) from None


def as_csv(run: str, records: Sequence[RoundRecord]) -> bytes:
    """Return the records as CSV: nested tables become columns ``a/b``, lists are left out.

    Args:
        run: the id of the run, for a column of its own.
        records: one per round.
    """
    return csv_bytes([{**_flat(plain(record.to_json())), "run": run} for record in records])


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            row |= _flat(value, f"{prefix}{name}/")
        elif not isinstance(value, list):
            row[prefix + name] = value
    return row
