"""Every seed of the project: a number for each (seed, purpose, key), whatever else is drawn.

Nothing here depends on a worker, on the order of calls or on global state, so a run gives the
same numbers however its clients are divided, and drawing for one purpose never moves another.

Numbers are mixed by SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014, https://doi.org/10.1145/2714064.2660195), one round for each part of the
key. It works on whole arrays: a cohort's minibatches are drawn in a few operations.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import numpy as np
import torch

#: SplitMix64's.
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL = 2**64 - 1


class Purpose(IntEnum):
    """What random numbers are for. The values are part of what a seed means: never reuse one."""

    PARTITION = 0  #: which examples a client gets
    SPLIT = 1  #: (client) its training, validation and test examples
    EXAMPLES = 2  #: (client) examples that are drawn or made for it
    PROBLEM = 3  #: what a synthetic problem is
    BACKBONE = 4  #: initial weights of the backbone
    HEAD = 5  #: (task name) initial weights of a head
    PARTICIPATION = 6  #: (round) who trains
    EVALUATION = 7  #: (round) who is evaluated
    COMPARISON = 8  #: (round) whose updates are compared
    MINIBATCHES = 9  #: (stream, round, epoch, client, example) the order of examples
    TRAINING = 10  #: (round, client) what PyTorch draws in training, such as dropout
    PERSONALISATION = 11  #: (round, client) what PyTorch draws before an evaluation
    MERGE = 12  #: (the strategy's own seed, ...) what a strategy draws
    SEARCH = 13  #: (trials) which settings are tried
    OFFICIAL = 14  #: (split) which client gets which examples of a test set that the data has
    SELECTION = 15  #: (round) what a strategy draws to choose who trains
    UNSEEN = 16  #: (client) who is kept out of training
    TRANSFER = 17  #: (split, repeat, example) the examples from which a new task is learnt
    AUGMENTATION = 18  #: (stream, round, client, step) how a minibatch is changed


def derive(seed: int, purpose: Purpose, *key: int | str | np.ndarray) -> np.ndarray:
    """Return uint64 numbers that look independent for any two different arguments.

    Args:
        seed: the run's.
        purpose: what the numbers are for.
        key: tells the numbers of one purpose apart; arrays of whole numbers are broadcast against
            one another, and give the result its shape.
    """
    state: int | np.ndarray = _mixed(_number(seed))
    for part in (int(purpose), *key):
        if isinstance(part, np.ndarray):
            state = _mix(np.asarray(state, np.uint64) ^ part.astype(np.uint64))
        elif isinstance(state, np.ndarray):
            state = _mix(state ^ np.uint64(_number(part)))
        else:
            state = _mixed(state ^ _number(part))
    return np.asarray(state, np.uint64)


def generator(seed: int, purpose: Purpose, *key: int | str) -> np.random.Generator:
    """Return NumPy's generator for (seed, purpose, key); see :func:`derive`."""
    return np.random.default_rng(int(derive(seed, purpose, *key)))


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from ``seed`` whatever draws from PyTorch meanwhile; go on afterwards as before.

    As ``torch.random.fork_rng`` and ``torch.manual_seed``, but for one device, and without the
    stack trace that the latter takes where there is no GPU, which costs more than all else.

    Args:
        device: the CPU, or the GPU in use beside it.
        seed: 0 <= seed < 2**64.
    """
    generators = default_generators(device)
    before = [each.get_state() for each in generators]
    try:
        for each in generators:
            each.manual_seed(seed)
        yield
    finally:
        for each, state in zip(generators, before, strict=True):
            each.set_state(state)


@contextmanager
def seeded_elsewhere(seed: int) -> Iterator[None]:
    """Have Python and NumPy draw from ``seed`` meanwhile, for models that ask them."""
    before = states_elsewhere()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def states_elsewhere() -> tuple[Any, Any]:
    """Return the states of the random numbers of Python and of NumPy."""
    return random.getstate(), np.random.get_state(legacy=True)  # noqa: NPY002


def default_generators(device: torch.device) -> list[torch.Generator]:
    """Return the generators that PyTorch draws from: the CPU's, and that of a GPU ``device``."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    return generators


def _number(part: int | str) -> int:
    if isinstance(part, str):
        part = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
    return part & _ALL


@np.errstate(over="ignore")
def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def _mixed(z: int) -> int:
    """As :func:`_mix`, of one number, for which NumPy takes ten times as long."""
    z = z + _GOLDEN & _ALL
    z = (z ^ z >> 30) * _FIRST & _ALL
    z = (z ^ z >> 27) * _SECOND & _ALL
    return z ^ z >> 31
