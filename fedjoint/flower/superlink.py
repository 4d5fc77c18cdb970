"""Flower's SuperLink in this process, behind our gate."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import uvicorn
from flwr.superlink import extensions
from starlette.middleware import Middleware

from fedjoint.flower.gate import Gate
from fedjoint.flower.logs import as_ours

_LAST = 5  # seconds that open requests have once the server stops


def run_superlink(
    options: Sequence[str], beside: Callable[[Any], AbstractContextManager[object]]
) -> None:
    """Run a SuperLink until a signal comes.

    Args:
        options: of ``flower-superlink``.
        beside: gets the SuperLink's state, and is entered as long as that runs.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        with beside(app.state.linkstate_factory.state()):
            yield None

    def serve(**given: Any) -> None:
        # One format for all lines; and whoever follows a log must not keep the server alive.
        uvicorn.run(**given | {"log_config": None, "timeout_graceful_shutdown": _LAST})

    own = extensions.get_middleware
    # Flower offers these hooks to its own enterprise module alone. The first one is outermost.
    extensions.get_middleware = lambda: (Middleware(Gate), *own())
    extensions.get_lifespan_contexts = lambda: (lifespan,)
    cli = import_module("flwr.superlink.cli.flower_superlink")  # the package hides it
    cli.uvicorn = SimpleNamespace(run=serve)  # type: ignore[attr-defined]
    as_ours()
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    # uvicorn shuts down at these, and then raises them again.
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: None)
    sys.argv = ["flower-superlink", *options]
    cli.flower_superlink()
