"""A file of JSON objects, a line each, read while another process writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Tail:
    """What is new in a file since the last look.

    Args:
        path: the file, which need not be there yet.
        start: the place from which on it is read.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path, self._read = path, start

    def shrank(self) -> bool:
        """Return whether the file is shorter than what was read, which is then read anew."""
        try:
            shrank = self._path.stat().st_size < self._read
        except OSError:
            return False
        if shrank:
            self._read = 0
        return shrank

    def entries(self) -> list[dict[str, Any]]:
        """Return the new objects; a line that a crash cut is left out."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")  # the last may be half written
        except OSError:
            return []
        self._read += len(whole) + len(newline)
        found = []
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                found.append(entry)
        return found
