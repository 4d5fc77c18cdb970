"""What the operator has tied to each node's key, as the server reads it.

A node's ``node.pub`` is a key in OpenSSH's format, whose comment ``fedjoint keys`` writes: the
node's name, and the ids of its clients where the operator has given any.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from fedjoint.errors import UserError
from fedjoint.server.badges import Badge, Badges

if TYPE_CHECKING:
    from flwr.serverapp import Grid

#: Names the folder of the nodes' keys, in the environment of the runs of a server that has any.
FOLDER = "FEDJOINT_NODE_KEYS"

_CLIENTS = "clients="


def comment(name: str, clients: Collection[int] | None) -> str:
    """Return the comment of a key of the node ``name`` with ``clients``; None: with any."""
    ids = "" if clients is None else f" {_CLIENTS}{','.join(map(str, sorted(clients)))}"
    return name + ids


def read_badge(path: Path) -> tuple[bytes, Badge]:
    """Return the key in a ``node.pub``, and what belongs to it.

    Without a comment the node is called as its folder is, as keys of earlier versions have none.

    Raises:
        UserError: the file is no public key with such a comment.
    """
    try:
        parts = path.read_text("utf-8").split()
        key = load_ssh_public_key(" ".join(parts[:2]).encode())
        clients = None
        if len(parts) > 3:
            ids = parts[3].removeprefix(_CLIENTS).split(",")
            clients = frozenset(int(id) for id in ids if id)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: not a node's public key ({error}); copy it again") from None
    name = parts[2] if len(parts) > 2 else path.parent.name
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem, Badge(name, clients)


def read_badges(folder: Path) -> dict[bytes, Badge]:
    """Return key -> badge of all nodes in a folder of ``NAME/node.pub``.

    Raises:
        UserError: a file is no public key.
    """
    return dict(read_badge(path) for path in sorted(folder.glob("*/node.pub")))


def plain_key(pem: bytes) -> bytes:
    """Return a public key in the one way to write it."""
    return load_pem_public_key(pem).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_badges(grid: Grid) -> Badges | None:
    """Return what tells the badge of a node of ``grid``; None where the server has no keys."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return None

    def badge(node: int) -> Badge | None:
        known = read_badges(Path(folder))
        keys = [info.public_key for info in grid.get_nodes() if info.node_id == node]
        return known.get(plain_key(keys[0])) if keys else None

    return badge
