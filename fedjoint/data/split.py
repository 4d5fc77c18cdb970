"""Each client's own training, validation and test examples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import Client, Examples
from fedjoint.data.dataset import TEST, VALID, Dataset
from fedjoint.errors import UserError
from fedjoint.model.stream import Stream
from fedjoint.model.tree import Input
from fedjoint.randomness import Purpose, generator


def split_sizes(
    counts: np.ndarray, valid_fraction: float, test_fraction: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the training, validation and test sizes of ``counts`` examples.

    Shares are rounded down, what is left over is for training: one example or more always is.
    """
    # 100 * 0.29 is 28.999...: rounding down must not see that.
    valid = np.floor(counts * valid_fraction + 1e-9).astype(np.int64)
    test = np.floor(counts * test_fraction + 1e-9).astype(np.int64)
    return counts - valid - test, valid, test


def whole(train: int, valid_fraction: float, test_fraction: float) -> int:
    """Return the fewest examples of which ``train`` are for training."""
    rest = 1 - valid_fraction - test_fraction
    # Two shares that are rounded down leave less than two more for training than ``rest`` does.
    counts = np.arange(max(train, int((train - 2) / rest)), int(train / rest) + 2)
    sizes = split_sizes(counts, valid_fraction, test_fraction)[0]
    return int(counts[np.argmax(sizes >= train)])


class Splitter:
    """Divides the examples of a client into training, validation and test examples.

    Those of an origin that has a validation or test set of its own (see :class:`Dataset`) give
    none to it.

    Args:
        dataset: all examples.
        seed: decides the splits.
        valid_fraction: share of a client's examples.
        test_fraction: share of a client's examples.
        most: training examples of a client, at most; None: all.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        valid_fraction: float,
        test_fraction: float,
        most: int | None = None,
    ) -> None:
        self._seed, self._most = seed, most
        n = len(dataset.examples)
        origin = np.zeros(n, np.int64) if dataset.origin is None else dataset.origin
        has = [np.isin(origin, origin[dataset.rows(split)]) for split in (VALID, TEST)]
        self._kind = has[0] + 2 * has[1].astype(np.int8)
        fractions = (valid_fraction, test_fraction)
        self._fractions = {
            kind: (0.0 if kind & 1 else fractions[0], 0.0 if kind & 2 else fractions[1])
            for kind in np.unique(self._kind).tolist()
        }

    def split(self, index: np.ndarray, client: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shuffle the positions ``index`` by (seed, client), and cut them.

        Args:
            index: ``[m]`` int64.
            client: its id.
        """
        kinds, rng = self._kind[index], generator(self._seed, Purpose.SPLIT, client)
        pieces: list[list[np.ndarray]] = []
        for kind, fractions in self._fractions.items():
            shuffled = rng.permutation(index[kinds == kind])
            train, valid, _ = split_sizes(np.array(len(shuffled)), *fractions)
            pieces.append(np.split(shuffled, [int(train), int(train + valid)]))
        first, second, third = (np.concatenate(part) for part in zip(*pieces, strict=True))
        if self._most is not None and len(first) > self._most:
            first = (rng.permutation(first) if len(pieces) > 1 else first)[: self._most]
        return first, second, third

    def size(self, index: np.ndarray) -> int:
        """Return how many of the examples at ``index`` are for training."""
        kinds = self._kind[index]
        total = sum(
            int(split_sizes(np.array((kinds == kind).sum()), *fractions)[0])
            for kind, fractions in self._fractions.items()
        )
        return total if self._most is None else min(total, self._most)


def standardised(client: Client) -> Client:
    """Scale features to mean 0 and deviation 1 by the client's own training examples.

    A feature that is constant there is only shifted; a client with none is returned as it is.
    """
    if not len(client.train):
        return client
    mean, scale = moments(client.train.x)

    def scaled(part: Examples) -> Examples:
        return Examples((features(part.x) - mean) / scale, part.y)

    return Client(scaled(client.train), scaled(client.valid), scaled(client.test))


def moments(x: Input | Stream) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of ``x`` ``[n, ...]``; the latter 1 where it is 0."""
    deviation, mean = torch.std_mean(features(x), 0, correction=0)
    return mean, torch.where(deviation > 0, deviation, 1.0)


def features(x: Input | Stream) -> Tensor:
    """Return the one tensor of features that is scaled.

    Raises:
        UserError: inputs are none.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise UserError("standardise scales one tensor of numbers: scale other inputs yourself")
    return x
