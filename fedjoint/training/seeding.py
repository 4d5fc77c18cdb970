"""Random numbers that depend on a seed alone, whatever was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from ``seed`` whatever draws from PyTorch meanwhile; go on afterwards as before.

    As ``torch.random.fork_rng`` and ``torch.manual_seed``, but for one device, and without the
    stack trace that the latter takes where there is no GPU, which costs more than all else.

    Args:
        device: the CPU, or the GPU in use beside it.
        seed: 0 <= seed < 2**63.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
