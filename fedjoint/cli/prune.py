"""``fedjoint prune``: the state of old runs on a node."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fedjoint.cli.common import finite, say
from fedjoint.errors import UserError
from fedjoint.runs.files import writing

_DAY = 86_400.0  # seconds
_BESIDE = ("", "-wal", "-shm")  # what SQLite keeps beside a database


def prune_command(
    state: Annotated[Path, typer.Argument(help="Folder of a node's state (--state).")],
    days: Annotated[float, typer.Option(min=0, help="Of runs without news for so long.")] = 90.0,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; else list them.")] = False,
) -> None:
    """List, or delete, the heads and other private state of runs that ended long ago.

    A run whose state is deleted cannot be resumed with this node's heads, nor exported.
    """
    if not state.is_dir():
        raise UserError(f"{state}: no such folder; give the --state of a node")
    before = time.time() - finite("--days", days) * _DAY
    old = [path for path in sorted(state.glob("*.sqlite")) if _used(path) < before]
    for path in old:
        when = datetime.fromtimestamp(_used(path))
        size = sum(part.stat().st_size for part in _parts(path)) / 1e6
        say(f"{path.stem}: last used on {when:%d %B %Y}, {size:.1f} MB")
        if delete:
            with writing(path):
                for part in _parts(path):
                    part.unlink()
    what = "deleted" if delete else "to delete with --delete"
    say(f"{len(old)} of {len(list(state.glob('*.sqlite'))) + len(old) * delete} runs {what}")


def _parts(path: Path) -> list[Path]:
    found = [path.with_name(path.name + end) for end in _BESIDE]
    return [part for part in found if part.exists()]


def _used(path: Path) -> float:
    return max(part.stat().st_mtime for part in _parts(path))
