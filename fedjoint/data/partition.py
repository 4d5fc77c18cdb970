"""Partitioners: pure functions that divide ``n`` examples among clients.

Each returns one ``[m]`` int64 array of positions per client, in random order; every example is in
exactly one of them, and every client has at least ``minimum``. The same generator state gives the
same partition. All raise UserError where the examples do not suffice.
"""

from __future__ import annotations

import numpy as np

from fedjoint.errors import UserError

Parts = list[np.ndarray]


def iid(n: int, clients: int, rng: np.random.Generator, *, minimum: int = 0) -> Parts:
    """Divide at random into parts whose sizes differ by at most one."""
    _suffices(n, clients, minimum)
    return np.array_split(rng.permutation(n), clients)


def quantity(
    n: int, clients: int, rng: np.random.Generator, *, alpha: float, minimum: int = 0
) -> Parts:
    """Divide at random into parts of skewed sizes: ``minimum`` plus Dirichlet(``alpha``) shares."""
    _suffices(n, clients, minimum)
    shares = rng.dirichlet(np.full(clients, alpha))
    extra = np.rint(np.cumsum(shares)[:-1] * (n - clients * minimum)).astype(np.int64)
    return np.split(rng.permutation(n), extra + minimum * np.arange(1, clients))


def dirichlet(
    labels: np.ndarray, clients: int, rng: np.random.Generator, *, alpha: float, minimum: int = 0
) -> Parts:
    """Divide each label by its own Dirichlet(``alpha``) shares (Hsu et al., 2019).

    Clients left below ``minimum`` then take random examples, one by one, from whichever client
    has most.

    Args:
        labels: ``[n]`` integers.
        clients: number of clients.
        rng: decides everything.
        alpha: the smaller, the fewer labels a client has most of its examples from.
        minimum: fewest examples of a client.

    Paper: https://arxiv.org/abs/1909.06335
    """
    _suffices(len(labels), clients, minimum)
    pieces: list[Parts] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        pieces.append(np.split(members, cuts))
    parts = [rng.permutation(np.concatenate(own)).tolist() for own in zip(*pieces, strict=True)]
    sizes = np.array([len(part) for part in parts])
    for poor in np.flatnonzero(sizes < minimum):
        while sizes[poor] < minimum:
            rich = int(sizes.argmax())  # above the minimum, for the examples suffice
            parts[poor].append(parts[rich].pop())
            sizes[poor] += 1
            sizes[rich] -= 1
    return [np.array(part, np.int64) for part in parts]


def shards(
    labels: np.ndarray, clients: int, rng: np.random.Generator, *, per_client: int, minimum: int = 0
) -> Parts:
    """Sort by label, cut into equal shards, and deal ``per_client`` of them to each client.

    Paper: McMahan et al., 2017, section 3, https://arxiv.org/abs/1602.05629
    """
    n, count = len(labels), clients * per_client
    if n < count or n // count * per_client < minimum:
        raise UserError(
            f"{n} examples cut into {count} shards give a client fewer than {max(minimum, 1)}; "
            "lower data.clients, data.shards_per_client or data.min_examples"
        )
    shuffled = rng.permutation(n)
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(ordered, count)
    hands = rng.permutation(count).reshape(clients, per_client)
    return [rng.permutation(np.concatenate([pieces[s] for s in hand])) for hand in hands]


def natural(owners: np.ndarray, *, minimum: int = 0) -> Parts:
    """Give each distinct owner in ``owners`` (``[n]``), in sorted order, its own examples."""
    names, number, sizes = np.unique(owners, return_inverse=True, return_counts=True)
    if sizes.min() < minimum:
        few = int(sizes.argmin())
        raise UserError(
            f"client {str(names[few])!r} has {sizes[few]} examples; lower data.min_examples from "
            f"{minimum}, or leave its rows out"
        )
    return np.split(np.argsort(number, kind="stable"), np.cumsum(sizes)[:-1])


def _suffices(n: int, clients: int, minimum: int) -> None:
    if n < clients * minimum:
        raise UserError(
            f"{n} examples do not give {clients} clients {minimum} each; lower data.clients or "
            "data.min_examples, or set data.partition = 'iid' and data.examples_per_client to "
            "draw with replacement"
        )
