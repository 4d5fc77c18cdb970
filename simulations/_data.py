"""Where data are that are too large for the repository."""

from __future__ import annotations

import os
from pathlib import Path


def files(*names: str) -> list[str]:
    """Return the paths of files of sentences."""
    return [str(root() / "text" / name) for name in names]


def table(name: str) -> str:
    """Return the path of a table."""
    return str(root() / "tabular" / name)


def root() -> Path:
    """Return the folder that ``FEDJOINT_DATA`` names, by default ``../shared/data``."""
    return Path(os.environ.get("FEDJOINT_DATA") or "../shared/data").expanduser().resolve()
