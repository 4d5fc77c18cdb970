"""Independent random streams, each named by (seed, purpose, number)."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for; the numbers are part of what a seed means."""

    PARTITION = 0
    SPLIT = 1
    DRAW = 2
    PROBLEM = 3


def stream(seed: int, purpose: Purpose, number: int = 0) -> np.random.Generator:
    """Return the generator of ``number`` (say, a client) for ``purpose``."""
    key = (int(purpose), number)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
