"""A process and those it started: which there are, what memory they took, and their end.

From ``/proc``; on a system without it, only the process itself is known, and no memory.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from pathlib import Path


def tree(root: int) -> list[int]:
    """Return ``root`` and all its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # After the name, which is in brackets and may hold anything, come state and parent.
        stat = _read(folder / "stat").rpartition(")")[2].split()
        if stat:
            children.setdefault(int(stat[1]), []).append(int(folder.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def megabytes(processes: list[int]) -> float:
    """Return the peak resident memory of each process, summed.

    Pages that processes share (libraries, Ray's object store) count once for each.
    """
    peaks = [
        int(line.split()[1])
        for process in processes
        for line in _read(Path(f"/proc/{process}/status")).splitlines()
        if line.startswith("VmHWM:")
    ]
    return sum(peaks) * 1024 / 1e6 if peaks else math.nan


def kill(root: int) -> None:
    """Kill ``root`` and all its descendants."""
    for process in tree(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it ended meanwhile
        return ""
