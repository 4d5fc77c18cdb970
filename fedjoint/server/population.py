"""Who there is, who takes part in a round, and which node trains whom."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedjoint.errors import UserError
from fedjoint.randomness import Purpose, generator
from fedjoint.server.bundles import Block, bundled


@dataclass
class Population:
    """The clients that the server knows.

    Clients are divided once into blocks of one group with the same tasks and similar sizes. What a
    node trains as a whole is a block, or a bundle of small ones; their members never depend on the
    number of nodes, but where all train on GPUs.

    Attributes:
        ids: ``[clients]`` int64, ascending.
        sizes: ``[clients]`` int64, training examples.
        tasks: ``[clients, tasks]`` bool.
        home: ``[clients]`` int64, number of the node where a client lives; -1: any can play it.
        blocks: how many blocks are wanted; 0 chooses.
        held: ``[clients, 3]`` int64, validation, test and central examples; None where any node can
            play any client.
        group: ``[clients]`` int64, the number of the client's group.
        pack: how many clients a bundle of blocks has at most, where these have fewer.
        mixed: whether a bundle may have blocks of several sets of tasks.
        block: ``[clients]`` int64, the client's block.
        bundle: ``[blocks]`` int64, the block's bundle, see :mod:`fedjoint.server.bundles`.
    """

    ids: np.ndarray
    sizes: np.ndarray
    tasks: np.ndarray
    home: np.ndarray
    blocks: int = 0
    held: np.ndarray | None = None
    group: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    pack: int = 1
    mixed: bool = False
    block: np.ndarray = field(init=False)
    bundle: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if not len(self.group):
            self.group = np.zeros(len(self.ids), np.int64)
        alike = np.column_stack([self.home, self.group])
        self.block = divide(self.tasks, self.sizes, self.ids, alike, self.blocks)
        self.bundle = np.arange(self.block.max(initial=-1) + 1)
        if self.pack > 1:
            self.bundle = self._bundles(alike)

    def _bundles(self, alike: np.ndarray) -> np.ndarray:
        _, first, clients = np.unique(self.block, return_index=True, return_counts=True)
        columns = [*alike[first].T, *(() if self.mixed else self.tasks[first].T)]
        largest = np.zeros(len(first), np.int64)
        np.maximum.at(largest, self.block, self.sizes)
        numbers = _numbered(columns), clients, np.bincount(self.block, self.sizes), largest
        return bundled([Block(*map(int, row)) for row in zip(*numbers, strict=True)], self.pack)

    def sample(self, seed: int, round: int, fraction: float) -> np.ndarray:
        """Return the positions of the clients that train in ``round``, ascending.

        Clients without examples never train.
        """
        found = np.flatnonzero(self.sizes > 0)
        return self._draw(found, seed, round, _share(fraction, len(found)), Purpose.PARTICIPATION)

    def sample_evaluation(
        self, seed: int, round: int, fraction: float, ready: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Draw who is evaluated.

        Args:
            seed: the run's.
            round: the round.
            fraction: the share of all clients that is wanted.
            ready: ``[clients]`` bool, who may be drawn.

        Returns:
            Their positions, ascending, and how many are wanted beside them.
        """
        everyone = self.tasks.any(1)
        most = _share(fraction, int(everyone.sum()))
        found = np.flatnonzero(everyone & ready)
        drawn = self._draw(found, seed, round, most, Purpose.EVALUATION)
        return drawn, most - len(drawn)

    def sample_compared(self, chosen: np.ndarray, seed: int, round: int, most: int) -> np.ndarray:
        """Return at most ``most`` of the positions ``chosen``, to be compared; ascending."""
        if len(chosen) <= most:
            return chosen
        rng = generator(seed, Purpose.COMPARISON, round)
        return np.sort(rng.choice(chosen, most, replace=False, shuffle=False))

    def _draw(
        self, found: np.ndarray, seed: int, round: int, most: int, purpose: Purpose
    ) -> np.ndarray:
        if len(found) <= most:
            return found
        rng = generator(seed, purpose, round)
        return found[np.sort(rng.choice(len(found), most, replace=False, shuffle=False))]


def _share(fraction: float, count: int) -> int:
    """Return the share of ``count`` clients, one at least where there are any."""
    return min(count, max(1, round_half_up(fraction * count)))


def round_half_up(value: float) -> int:
    """Round to the nearest whole number, halves upwards."""
    return math.floor(value + 0.5)


def divide(
    tasks: np.ndarray, sizes: np.ndarray, ids: np.ndarray, alike: np.ndarray, blocks: int = 0
) -> np.ndarray:
    """Return ``[clients]`` the block of each client.

    Args:
        tasks: ``[clients, tasks]`` bool; a block's clients have the same ones.
        sizes: ``[clients]``; a block's clients are of similar size.
        ids: ``[clients]``.
        alike: ``[clients]`` or ``[clients, k]``; a block's clients have the same: node and group.
        blocks: how many blocks; 0 chooses. There is at least one for each set of tasks.
    """
    signature = _numbered([*np.atleast_2d(alike.T), *np.packbits(tasks, axis=1).T])
    order = np.lexsort((ids, sizes, signature))
    count = len(ids)
    wanted = blocks or min(64, max(math.ceil(count / 64), min(4, count)))
    block = np.zeros(count, np.int64)
    first = 0
    for value in range(int(signature.max()) + 1 if count else 0):
        members = order[signature[order] == value]
        parts = max(1, min(len(members), round_half_up(wanted * len(members) / count)))
        bounds = np.linspace(0, len(members), parts + 1).astype(int)
        for part, (start, stop) in enumerate(itertools.pairwise(bounds)):
            block[members[start:stop]] = first + part
        first += parts
    return block


def blocks_on_gpus(clients: int, gpus: int) -> int:
    """Return how many blocks to divide clients into that train on ``gpus`` workers.

    On a GPU a job of a thousand small clients takes little longer than one of ten; so blocks are
    few, and follow the number of workers: every worker has one.
    """
    return max(min(64, math.ceil(clients / 1024)), min(gpus, clients))


def _numbered(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return ``[rows]`` each row's place among the rows that differ, in lexicographic order.

    Column by column: to sort whole rows, NumPy copies all of them several times.
    """
    place = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, own = np.unique(column, return_inverse=True)
        place = np.unique(place * len(values) + own, return_inverse=True)[1]
    return place


def assign(costs: dict[int, float], nodes: list[int]) -> dict[int, int]:
    """Assign blocks to nodes, longest processing time first.

    Args:
        costs: block -> seconds, or anything proportional.
        nodes: the nodes.

    Returns:
        block -> node.

    Raises:
        UserError: there is no node.
    """
    if not nodes:
        raise UserError("no node is connected")
    loads = [(0.0, node) for node in sorted(nodes)]
    heapq.heapify(loads)
    placed = {}
    for block in sorted(costs, key=lambda b: (-costs[b], b)):
        load, node = heapq.heappop(loads)
        placed[block] = node
        heapq.heappush(loads, (load + costs[block], node))
    return placed


def makespan(costs: dict[int, float], placed: dict[int, int]) -> float:
    """Return the load of the busiest node."""
    loads: dict[int, float] = {}
    for block, node in placed.items():
        loads[node] = loads.get(node, 0.0) + costs[block]
    return max(loads.values(), default=0.0)
