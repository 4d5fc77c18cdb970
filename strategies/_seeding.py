"""Where the random choices of strategies come from."""

from __future__ import annotations

import numpy as np

from fedjoint import randomness
from fedjoint.randomness import Purpose
from fedjoint.server.strategy import JointStrategy, circumstances


def generator(strategy: JointStrategy, *key: int) -> np.random.Generator:
    """Return the random numbers of ``key``, in the run that ``strategy`` is bound to.

    A strategy that merges by hand, outside a run, has those of seed 0.

    Args:
        strategy: draws them.
        key: whole numbers >= 0 that tell the choice from all others: the strategy's own seed,
            and where they matter the round and the client.
    """
    known = circumstances(strategy)
    return randomness.generator(known.config.seed if known else 0, Purpose.MERGE, *key)
