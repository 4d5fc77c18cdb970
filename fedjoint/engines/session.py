"""Workers of Ray, kept for several runs: most of a short run is their start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedjoint.config.schema import EngineConfig

if TYPE_CHECKING:
    from fedjoint.engines.ray import Workers

_kept: list[Workers] = []


@contextmanager
def session(config: EngineConfig) -> Iterator[None]:
    """Keep the workers up for the runs inside that use them.

    Raises:
        UserError: see :class:`fedjoint.engines.ray.Workers`.
    """
    if config.name != "ray":
        yield
        return
    with ray_workers(config) as workers:
        _kept.append(workers)
        try:
            yield
        finally:
            _kept.remove(workers)


@contextmanager
def ray_workers(config: EngineConfig) -> Iterator[Workers]:
    """Return the session's workers where they are of this configuration, else new ones."""
    for kept in _kept:
        if kept.config == config:
            yield kept
            return
    from fedjoint.engines.ray import Workers

    workers = Workers(config)
    try:
        yield workers
    finally:
        workers.close()
