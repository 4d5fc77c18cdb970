"""Which nodes a server knows: those whose public keys are in the folder ``keys/nodes``."""

from __future__ import annotations

import logging
from pathlib import Path

from fedjoint._util.often import Often
from fedjoint.errors import UserError, choose
from fedjoint.flower.badges import read_badge
from fedjoint.flower.control import Control

log = logging.getLogger("fedjoint.deploy")

_LOOK = 0.5  # seconds between two looks into the folder


def register(control: Control, keys: Path) -> list[str]:
    """Make the server know the public keys in ``keys/nodes``; return the names of the new ones.

    A key that is no key, or that was revoked, is said and left out.

    Raises:
        UserError: the server does not answer.
    """
    known = {node.key: node for node in control.nodes()}
    new = []
    for path in sorted((keys / "nodes").glob("*/node.pub")):
        name = path.parent.name
        try:
            key, _ = read_badge(path)
        except UserError as error:
            log.error("%s", error)
            continue
        if key not in known:
            if control.register(name, key):  # else someone else just has
                log.info("registered node %s", name)
                new.append(name)
        elif known[key].state == "unregistered":
            log.error("%s: this key was revoked; make node %s another one", path, name)
    return new


def registrar(control: Control, keys: Path) -> Often:
    """Return what registers keys soon after they are put into a folder, while it is entered."""
    return Often(_Registrar(control, keys).look, _LOOK, "registrar")


class _Registrar:
    def __init__(self, control: Control, keys: Path) -> None:
        self._control, self._keys = control, keys
        self._before: object = None

    def look(self) -> None:
        try:
            found = [
                (path, path.stat().st_mtime_ns) for path in self._keys.glob("nodes/*/node.pub")
            ]
            if sorted(found) != self._before:
                register(self._control, self._keys)
                self._before = sorted(found)
        except (UserError, OSError) as error:  # the server is just starting; a key just went
            log.debug("%s", error)


def revoke(control: Control, name: str, keys: Path | None) -> None:
    """Make the server forget a node, for good, and remove its key from the folder.

    Args:
        control: reaches the server.
        name: of the node, or its number.
        keys: folder of keys; None: there is none.

    Raises:
        UserError: there is no such node, or the server does not answer.
    """
    nodes = [node for node in control.nodes() if node.state != "unregistered"]
    found = [node for node in nodes if name in (node.name, str(node.number))]
    if not found:
        raise choose("node", name, [node.name or str(node.number) for node in nodes])
    for node in found:
        control.revoke(node.number)
        path = keys / "nodes" / node.name / "node.pub" if keys and node.name else None
        if path and path.exists():
            path.unlink()
