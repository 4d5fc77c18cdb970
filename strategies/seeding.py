"""Where the random choices of strategies come from."""

from __future__ import annotations

import numpy as np

from fedjoint.server.strategy import JointStrategy


def generator(strategy: JointStrategy, *key: int) -> np.random.Generator:
    """Return the random numbers of ``key``, in the run that ``strategy`` is bound to.

    A strategy that merges by hand, outside a run, has those of seed 0.

    Args:
        strategy: draws them.
        key: whole numbers >= 0 that tell the choice from all others: the strategy's own seed,
            and where they matter the round and the client.
    """
    run = strategy.config.seed if hasattr(strategy, "config") else 0
    return np.random.default_rng([run, *key])
