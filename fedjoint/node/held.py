"""How many examples the clients of a node are measured on: the most that their metrics count."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from fedjoint._util.limit import LateError, limited
from fedjoint.errors import ANYTHING
from fedjoint.problem import Problem
from fedjoint.protocol.description import MOST_EXAMPLES

_PATIENCE = 60.0  # seconds for all clients: the server waits for twice as long to hear of them


def count_held(problem: Problem, places: Iterable[int], seconds: float) -> np.ndarray:
    """Return ``[n, 3]`` int64, validation, test and central examples of clients.

    Of a client whose data do not come, or not in time, the first two are the most that there can
    be: it fails by name where it is to work, and until then nobody is to blame.

    Args:
        problem: has the data.
        places: of the clients in it.
        seconds: that a node has for a round, ``strategy.timeout``.
    """
    end = time.monotonic() + min(seconds, _PATIENCE)
    central = 0 if problem.central is None else len(problem.central)
    return np.array([[*_own(problem, place, end), central] for place in places], np.int64)


def _own(problem: Problem, place: int, end: float) -> tuple[int, int]:
    left = end - time.monotonic()
    try:
        if left > 0:
            with limited(left):
                client = problem.data.client(place)
                return len(client.valid), len(client.test)
    except (*ANYTHING, LateError):
        pass
    return MOST_EXAMPLES, MOST_EXAMPLES
