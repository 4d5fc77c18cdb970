"""How much memory this process may take, and what would take more."""

from __future__ import annotations

import os
from pathlib import Path

from fedjoint.errors import UserError

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2, and of version 1


def allowed_bytes(cgroup: Path = _CGROUP) -> int:
    """Return the memory that the machine and the container leave to this process.

    Args:
        cgroup: where the kernel says what a container may use.
    """
    most = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMITS:
        try:
            most.append(int((cgroup / name).read_text()))
        except (OSError, ValueError):  # there is no such file, or no limit
            continue
    return min(most)


def check_fits(what: str, size: float, remedy: str) -> None:
    """Refuse what takes more memory than there is, before any of it is taken.

    Args:
        what: takes it.
        size: about how many bytes.
        remedy: what to do.

    Raises:
        UserError: it does not fit.
    """
    most = allowed_bytes()
    if size > most:
        raise UserError(
            f"{what}: about {size / 1e9:.3g} GB, and this machine has {most / 1e9:.3g}: {remedy}"
        )
