"""Trees of JSON that say whether they are whole, and which run they belong to."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedjoint.errors import UserError
from fedjoint.runs.files import read_bytes, write_bytes
from fedjoint.runs.tensors import DamagedError

_SUM = "crc32"


def seal(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``tree`` with its checksum, for :func:`unseal`."""
    plain = json.loads(json.dumps(tree))
    return {**plain, _SUM: _checksum(plain)}


def unseal(sealed: object) -> dict[str, Any]:
    """Return the tree that was sealed.

    Raises:
        DamagedError: it is none, or was changed.
    """
    if not isinstance(sealed, dict):
        raise DamagedError("it is no table")
    tree = dict(sealed)
    if _SUM not in tree:
        raise DamagedError("it has no checksum, as files of older versions have none")
    if tree.pop(_SUM) != _checksum(tree):
        raise DamagedError("its checksum is wrong")
    return tree


def parse(text: bytes | str) -> dict[str, Any]:
    """Return the tree that ``text``, which is JSON, holds sealed.

    Raises:
        DamagedError: it is not JSON, or was changed.
    """
    try:
        sealed = json.loads(text)
    except (ValueError, RecursionError):
        raise DamagedError("it is not JSON") from None
    return unseal(sealed)


def write_sealed(path: Path, run: str, tree: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write ``tree`` as a file of the run with the id ``run``.

    Raises:
        UserError: the folder is full or not writable.
    """
    text = json.dumps(seal({"run": run, **tree}), indent=2) + "\n"
    write_bytes(path, text.encode(), durable=durable)


def read_sealed(path: Path, run: str | None = None) -> dict[str, Any]:
    """Return the tree of a file that :func:`write_sealed` wrote.

    Args:
        path: the file.
        run: the id of the run that it has to belong to; None: of any.

    Raises:
        UserError: it is missing, damaged, or of another run.
    """
    try:
        tree = parse(read_bytes(path))
    except DamagedError as error:
        raise UserError(f"{path}: damaged: {error}; restore it from a backup") from None
    check_owner(path, tree.get("run"), run)
    return tree


def check_owner(path: object, theirs: object, run: str | None) -> None:
    """Raise a UserError where ``path`` belongs to the run ``theirs``, and not to ``run``."""
    if not isinstance(theirs, str) or (run is not None and theirs != run):
        raise UserError(
            f"{path}: of another run: its id is {theirs}, that of the run {run}; restore the "
            "run's own from a backup"
        )


def _checksum(tree: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(tree, sort_keys=True).encode())
