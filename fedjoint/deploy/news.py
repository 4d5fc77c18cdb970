"""What the log of a run says, while it is written."""

from __future__ import annotations

from pathlib import Path

from fedjoint.deploy.tail import Tail

_NODES = "fedjoint.server.roster"  # the logger of what happens to nodes


class News:
    """New entries of a ``log.jsonl``, from now on.

    Args:
        path: the log, which need not be there yet.

    Attributes:
        last_error: the message of the newest error among them.
    """

    def __init__(self, path: Path):
        self._tail = Tail(path, path.stat().st_size if path.exists() else 0)
        self.last_error = ""

    def of_nodes(self) -> list[str]:
        """Return what has happened to nodes since the last call, in lines."""
        entries = self._tail.entries()
        for entry in entries:
            if entry.get("level") == "ERROR":
                self.last_error = str(entry.get("message", ""))
        return [str(e.get("message", "")) for e in entries if e.get("logger") == _NODES]
