"""One Ray for several runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedjoint.config import EngineConfig


@contextmanager
def session(config: EngineConfig) -> Iterator[None]:
    """Keep Ray up for the runs inside, where they use it; a Ray that was there before stays.

    Raises:
        UserError: the cluster cannot be joined.
    """
    if config.name != "ray":
        yield
        return
    import ray

    from fedjoint.engines.ray import start

    if ray.is_initialized():
        yield
        return
    start(config)
    try:
        yield
    finally:
        ray.shutdown()
