"""Whom a node may say it is: what the operator has tied to its key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedjoint.errors import UserError

if TYPE_CHECKING:
    from fedjoint.protocol.description import Description


@dataclass(frozen=True)
class Badge:
    """What belongs to a node's key.

    Attributes:
        name: of the node.
        clients: the ids that it may have; None: the operator has named none.
    """

    name: str
    clients: frozenset[int] | None = None


#: Node number -> the badge of its key, None where nobody knows the key.
Badges = Callable[[int], Badge | None]


def check_badge(about: Description, badge: Badge | None) -> None:
    """Refuse a node that says it is another than its key.

    Raises:
        UserError: its key, its name or a client is not in order.
    """
    if badge is None:
        raise UserError("its key is not among those of the server")
    if about.name != badge.name:
        raise UserError(f"it calls itself {about.name}, and its key is that of {badge.name}")
    if badge.clients is None:
        return
    strangers = sorted(set(about.ids.tolist()) - badge.clients)
    if strangers:
        raise UserError(
            f"client {strangers[0]} does not belong to the key of {badge.name}: give the key its "
            "clients by fedjoint keys --node NAME --clients IDS"
        )
