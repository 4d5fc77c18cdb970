"""Data that are what they were when a run loaded them first."""

from __future__ import annotations

from collections.abc import Mapping

from fedjoint.data.base import Client, Examples, Federation
from fedjoint.data.fingerprint import fingerprint
from fedjoint.data.loading import load_client
from fedjoint.errors import UserError

#: Stands for a client in place of an id: the examples that every client is measured on.
EVERYONE = -1


def check_unchanged(
    data: Federation,
    known: Mapping[int, str],
    places: Mapping[int, int] | None = None,
    central: Examples | None = None,
) -> None:
    """Make sure that clients have the data that a run was made from.

    Args:
        data: theirs now.
        known: id -> fingerprint of the data of each client that the run has loaded.
        places: id -> position in ``data``; None: the id itself.
        central: what every client is measured on, where there is such.

    Raises:
        UserError: a client's have changed, or it is there no more; the line names it.
    """
    for client, before in known.items():
        if client == EVERYONE:
            now = central_fingerprint(central) if central is not None else None
        else:
            place = client if places is None else places.get(client, len(data.sizes))
            now = client_fingerprint(data, place) if place < len(data.sizes) else None
        if now != before:
            raise changed(client)


def client_fingerprint(data: Federation, place: int) -> str:
    """Return what stands for the data of the client at ``place``."""
    return fingerprint(load_client(data, place), getattr(data, "legend", ()))


def central_fingerprint(central: Examples) -> str:
    """Return what stands for the examples that every client is measured on."""
    return fingerprint(Client(central, central, central))


def changed(client: int) -> UserError:
    """Return the error for a client whose data are not what they were."""
    whose = "that every client is measured on" if client == EVERYONE else f"of client {client}"
    return UserError(
        f"the data {whose} are not those that the run was made from; bring those back, "
        "or start a new run"
    )
