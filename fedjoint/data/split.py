"""Each client's own training, validation and test examples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedjoint.data.base import Client, Examples
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


def split(
    index: np.ndarray, seed: int, client: int, valid_fraction: float, test_fraction: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shuffle ``index`` by (seed, client) and cut it into training, validation and test."""
    shuffled = generator(seed, Purpose.SPLIT, client).permutation(index)
    train, valid, _ = split_sizes(np.array(len(index)), valid_fraction, test_fraction)
    first, second, third = np.split(shuffled, [int(train), int(train + valid)])
    return first, second, third


def standardised(client: Client) -> Client:
    """Scale features to mean 0 and deviation 1 by the client's own training examples.

    A feature that is constant there is only shifted; a client with none is returned as it is.
    """
    if not len(client.train):
        return client
    mean, scale = moments(client.train.x)

    def scaled(part: Examples) -> Examples:
        return Examples((part.x - mean) / scale, part.y)

    return Client(scaled(client.train), scaled(client.valid), scaled(client.test))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of ``x`` ``[n, ...]``; the latter 1 where it is 0."""
    deviation, mean = torch.std_mean(x, 0, correction=0)
    return mean, torch.where(deviation > 0, deviation, 1.0)
