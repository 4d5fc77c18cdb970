"""Flower's SuperLink in this process, behind our gate."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import uvicorn
from flwr.superlink import extensions
from starlette.middleware import Middleware

from fedjoint.errors import UserError
from fedjoint.flower.bell import Bell
from fedjoint.flower.gate import Gate
from fedjoint.flower.logs import as_ours
from fedjoint.flower.node_keys import NodeKeys
from fedjoint.flower.pass_by import pass_by

_LAST = 5  # seconds that open requests have once the server stops


class _Draining(uvicorn.Server):
    """A server that, at a first signal, answers until ``drain`` returns; at a second one ends."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain, self._asked = drain, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._asked:
            super().handle_exit(sig, frame)
        else:
            self._asked = True
            threading.Thread(target=self._end, name="drain").start()

    def _end(self) -> None:
        self._drain()
        self.should_exit = True


def run_superlink(
    options: Sequence[str],
    beside: Callable[[Any], AbstractContextManager[object]],
    drain: Callable[[], None],
    nodes: Path | None,
) -> None:
    """Run a SuperLink until a signal comes.

    Args:
        options: of ``flower-superlink``.
        beside: gets the SuperLink's state, and is entered as long as that runs.
        drain: ends what needs the SuperLink, before that ends.
        nodes: folder of the nodes' keys; None: they have none.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        with beside(app.state.linkstate_factory.state()):
            yield None

    def serve(app: Any, **given: Any) -> None:
        pass_by(app)
        # One format for all lines; and whoever follows a log must not keep the server alive.
        own = {"log_config": None, "timeout_graceful_shutdown": _LAST}
        server = _Draining(uvicorn.Config(app, **given | own), drain)
        server.run()
        if not server.started:
            raise UserError("the SuperLink did not start; the lines above say why")

    own = extensions.get_middleware
    # Flower offers these hooks to its own enterprise module alone. The first one is outermost.
    keys = NodeKeys(nodes) if nodes else None
    extensions.get_middleware = lambda: (Middleware(Gate, keys=keys, bell=Bell()), *own())
    extensions.get_lifespan_contexts = lambda: (lifespan,)
    cli = import_module("flwr.superlink.cli.flower_superlink")  # the package hides it
    cli.uvicorn = SimpleNamespace(run=serve)  # type: ignore[attr-defined]
    as_ours()
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    # The server heeds these, and uvicorn raises them again when it has ended.
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: None)
    sys.argv = ["flower-superlink", *options]
    cli.flower_superlink()
