"""Which blocks form jobs together: few clients of a small model train at once, whatever they learn.

A step of such a model takes longer to start than to run, so that one of many clients takes hardly
longer than one of few. Bundles follow from the clients and the settings alone, as blocks do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.server.strategy import JointStrategy, circumstances


def mixes(strategy: JointStrategy, config: Config) -> bool:
    """Return whether a client may train beside others that have tasks that it lacks.

    Only where these leave no trace in it: what it sends, weighs or keeps is about its own tasks.
    """
    known = circumstances(strategy)
    assert known is not None, "made by make_strategy"
    own, base = type(strategy), JointStrategy
    receives = own.receives is base.receives and own.first_backbones is base.first_backbones
    plain = known.method.plain and config.balance.name == "fixed"
    sent_whole = config.strategy.compression.name == "none" and not strategy.tasks_apart
    private = config.model.heads == "private" and not config.local.compile
    return receives and plain and sent_whole and private


def bundled(sizes: np.ndarray, kinds: Sequence[int], most: float) -> np.ndarray:
    """Return ``[blocks]`` int64, the bundle of each block, ascending.

    A bundle holds blocks in a row, of one kind, with about ``most`` clients; or a single block.

    Args:
        sizes: ``[blocks]`` clients in each.
        kinds: ``[blocks]``, alike for blocks that may form a bundle.
        most: clients in a bundle.
    """
    bundle = np.zeros(len(sizes), np.int64)
    first = 0
    for kind in dict.fromkeys(kinds):
        own = np.flatnonzero(np.asarray(kinds) == kind)
        total = int(sizes[own].sum())
        parts = max(1, math.ceil(total / most))
        middles = sizes[own].cumsum() - sizes[own] / 2
        bundle[own] = first + (middles * parts / max(1, total)).astype(np.int64)
        first += parts
    return np.unique(bundle, return_inverse=True)[1]
