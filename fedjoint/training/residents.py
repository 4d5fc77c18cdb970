"""The data of clients, kept on the device between rounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from fedjoint._util.limit import uninterrupted
from fedjoint.data.base import Client
from fedjoint.training.cohort import Cohort

#: Makes a cohort of the clients at these positions; what is resident of them is given beside.
Gather = Callable[[np.ndarray, np.ndarray, "list[Client | None]"], Cohort]


class Residents:
    """Cohorts by their clients, the least recently used forgotten first.

    A client is in one cohort at a time. Where it is asked for in another, it moves there, and a
    cohort that more than half of its clients have left is forgotten. So the data takes at most
    twice the room of the clients that are here, however they are drawn.

    Args:
        gather: makes a cohort.
        most: bytes kept; the cohort last asked for is kept whatever it takes.
    """

    def __init__(self, gather: Gather, most: int) -> None:
        self._gather, self._most = gather, most
        self._cohorts: OrderedDict[tuple[int, ...], Cohort] = OrderedDict()
        self._homes: dict[int, tuple[tuple[int, ...], int]] = {}
        self._left: dict[tuple[int, ...], int] = {}
        self._bytes = 0

    def cohort(self, places: np.ndarray, clients: np.ndarray) -> Cohort:
        """Return the cohort of ``clients``, ids, at ``places``, positions in the data."""
        key = tuple(places.tolist())
        if key not in self._cohorts:
            cohort = self._gather(places, clients, [self._client(place) for place in key])
            with uninterrupted():
                self._keep(key, cohort)
        self._cohorts.move_to_end(key)
        return self._cohorts[key]

    def _keep(self, key: tuple[int, ...], cohort: Cohort) -> None:
        for place in key:
            self._leave(place)
        self._cohorts[key], self._left[key] = cohort, len(key)
        self._homes |= {place: (key, row) for row, place in enumerate(key)}
        self._bytes += cohort.nbytes
        while self._bytes > self._most and len(self._cohorts) > 1:
            self._forget(next(iter(self._cohorts)))

    def _client(self, place: int) -> Client | None:
        if place not in self._homes:
            return None
        key, row = self._homes[place]
        return self._cohorts[key].client(row)

    def _leave(self, place: int) -> None:
        if place not in self._homes:
            return
        key, _ = self._homes.pop(place)
        self._left[key] -= 1
        if 2 * self._left[key] < len(key):
            self._forget(key)

    def _forget(self, key: tuple[int, ...]) -> None:
        self._bytes -= self._cohorts.pop(key).nbytes
        del self._left[key]
        for place in key:
            if self._homes.get(place, (None,))[0] == key:
                del self._homes[place]
