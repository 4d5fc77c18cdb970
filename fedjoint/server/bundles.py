"""Which blocks form jobs together: few clients of a small model train at once, whatever they learn.

A step of such a model takes longer to start than to run, so that one of many clients takes hardly
longer than one of few. Bundles follow from the clients and the settings alone, as blocks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.server.strategy import JointStrategy, chooses, circumstances
from fedjoint.training.method import is_plain

#: Rows that a bundle may have, padding included, and how many times its examples beyond that.
_ROWS, _PADDING = 10_000, 2


def mixes(strategy: JointStrategy, config: Config) -> bool:
    """Return whether a client may train beside others that have tasks that it lacks.

    Only where these leave no trace in it: what it sends, weighs or keeps is about its own tasks.
    And where all clients take part in every round: others would have other tasks together, for
    which there is no trace yet.
    """
    known = circumstances(strategy)
    assert known is not None, "made by make_strategy"
    own, base = type(strategy), JointStrategy
    receives = own.receives is base.receives and own.first_backbones is base.first_backbones
    plain = is_plain(known.method) and config.balance.name == "fixed"
    everyone = config.strategy.fraction == config.evaluate.fraction == 1 and not chooses(strategy)
    sent_whole = config.strategy.compression.name == "none" and not strategy.tasks_apart
    private = config.model.heads == "private" and not config.local.compile
    return receives and plain and everyone and sent_whole and private


def bundled(blocks: Sequence[Block], most: int) -> np.ndarray:
    """Return ``[blocks]`` int64, the bundle of each block, ascending.

    A bundle holds blocks in a row, of one kind, with at most ``most`` clients; or a single block.
    Its clients' examples are padded to the longest: where that makes them many, it ends.
    """
    bundle = np.zeros(len(blocks), np.int64)
    whole: Block | None = None
    for at, block in enumerate(blocks):
        together = whole and whole.beside(block)
        if together and together.clients <= most and not together.padded:
            whole = together
        else:
            whole = block
            bundle[at] = 1
    return bundle.cumsum() - 1


class Block(NamedTuple):
    """What counts of a block of clients, or of several.

    Attributes:
        kind: alike for blocks that may form a bundle.
        clients: how many.
        examples: of all of them.
        largest: examples of the one that has most.
    """

    kind: int
    clients: int
    examples: int
    largest: int

    def beside(self, other: Block) -> Block | None:
        """Return both as one; None where they are of two kinds."""
        if self.kind != other.kind:
            return None
        return Block(
            self.kind,
            self.clients + other.clients,
            self.examples + other.examples,
            max(self.largest, other.largest),
        )

    @property
    def padded(self) -> bool:
        """Whether padding is most of what there is, and much."""
        rows = self.clients * self.largest
        return rows > max(_ROWS, _PADDING * self.examples)
