"""A node's data, watched: are they still what the run loaded first?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedjoint.data.around import Around
from fedjoint.data.base import Client, Examples, Federation
from fedjoint.data.fingerprint import fingerprint
from fedjoint.data.loading import load_client
from fedjoint.data.unchanged import EVERYONE, central_fingerprint, changed
from fedjoint.node.store import StateStore


class WatchedFederation(Around):
    """A federation whose clients are compared with what the run has loaded before.

    A client is looked at when it is first loaded here. In a simulation that costs what takes part
    and no more; a node with clients of its own loads all of them, as it says how many examples
    they hold.

    Args:
        data: the federation.
        store: has the fingerprints.
        places: id -> position in ``data`` of the clients that live here; None: the id itself.
    """

    def __init__(
        self, data: Federation, store: StateStore, places: Mapping[int, int] | None
    ) -> None:
        super().__init__(data)
        self._store = store
        self._ids = None if places is None else {place: id for id, place in places.items()}
        self._seen = np.zeros(len(data.sizes), bool)
        self._new: dict[int, str] = {}

    def client(self, index: int) -> Client:
        """Return the data of client ``index``.

        Raises:
            UserError: they are not what they were.
        """
        client = load_client(self._data, index)
        if not self._seen[index]:
            id = index if self._ids is None else self._ids.get(index)
            if id is not None:  # else it lives elsewhere
                self._compare(id, fingerprint(client, self.legend))
            self._seen[index] = True
        return client

    def look_at_central(self, central: Examples) -> None:
        """Compare the examples that every client is measured on.

        Raises:
            UserError: they are not what they were.
        """
        self._compare(EVERYONE, central_fingerprint(central))

    def flush(self) -> None:
        """Keep the fingerprints of the clients that nobody had loaded before."""
        if self._new:
            self._store.note_loaded(self._new)
            self._new = {}

    def _compare(self, id: int, now: str) -> None:
        """Compare a fingerprint with that of the data that were loaded first, which it may be.

        Raises:
            UserError: it is another.
        """
        before = self._store.fingerprint(id)
        if before is None:
            self._new[id] = now
        elif now != before:
            raise changed(id)
