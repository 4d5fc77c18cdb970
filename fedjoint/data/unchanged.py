"""Data that are what they were when a run loaded them first."""

from __future__ import annotations

from collections.abc import Mapping

from fedjoint.data.base import Federation
from fedjoint.data.fingerprint import fingerprint
from fedjoint.errors import UserError


def check_unchanged(
    data: Federation, known: Mapping[int, str], places: Mapping[int, int] | None = None
) -> None:
    """Make sure that clients have the data that a run was made from.

    Args:
        data: theirs now.
        known: id -> fingerprint of the data of each client that the run has loaded.
        places: id -> position in ``data``; None: the id itself.

    Raises:
        UserError: a client's have changed, or it is there no more; the line names it.
    """
    for client, before in known.items():
        place = client if places is None else places.get(client, len(data.sizes))
        if place >= len(data.sizes):
            raise changed(client)
        if fingerprint(data.client(place)) != before:
            raise changed(client)


def changed(client: int) -> UserError:
    """Return the error for a client whose data are not what they were."""
    return UserError(
        f"the data of client {client} are not those that the run was made from; bring those back, "
        "or start a new run"
    )
