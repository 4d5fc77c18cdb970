"""What the log of a run says, while it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_NODES = "fedjoint.server.roster"  # the logger of what happens to nodes


class News:
    """New entries of a ``log.jsonl``, from now on.

    Args:
        path: the log, which need not be there yet.

    Attributes:
        last_error: the message of the newest error among them.
    """

    def __init__(self, path: Path):
        self._path, self.last_error = path, ""
        self._read = path.stat().st_size if path.exists() else 0

    def of_nodes(self) -> list[str]:
        """Return what has happened to nodes since the last call, in lines."""
        entries = self._entries()
        for entry in entries:
            if entry.get("level") == "ERROR":
                self.last_error = str(entry.get("message", ""))
        return [str(e.get("message", "")) for e in entries if e.get("logger") == _NODES]

    def _entries(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")  # the last line may be half written
        self._read += len(whole) + len(newline)
        entries = []
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a line that a crash cut
            if isinstance(entry, dict):
                entries.append(entry)
        return entries
