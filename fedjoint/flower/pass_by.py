"""Requests pass by those parts of a SuperLink that have nothing to say of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.middleware import Middleware

from fedjoint.flower.gate import NODES, OPERATORS, RUNS, App, Receive, Scope, Send

#: module of a middleware of Flower's -> interfaces whose requests it hands on as they are
_SILENT = {
    "flwr.superlink.routers.control.middlewares": (RUNS, NODES),
    "flwr.superlink.routers.fleet.middlewares": (RUNS, OPERATORS),
    "flwr.superlink.routers.fleet.node_auth": (RUNS, OPERATORS),
}


class PassBy:
    """ASGI middleware that is another one, but for requests to some interfaces.

    Args:
        app: what comes after it.
        layer: makes the other one.
        silent: beginnings of paths of the requests that pass by.
    """

    def __init__(self, app: App, layer: Any, silent: tuple[str, ...]) -> None:
        self._next, self._layer, self._silent = app, layer(app), silent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passes = scope["type"] == "http" and scope["path"].startswith(self._silent)
        await (self._next if passes else self._layer)(scope, receive, send)


def pass_by(app: Any) -> None:
    """Let requests to a SuperLink go through the layers alone that look at their interface.

    Each of the eight layers wraps the request's and the answer's stream in tasks of its own, which
    is most of what a request takes.

    Args:
        app: the SuperLink, before it serves.
    """
    app.user_middleware = [_short(each) for each in app.user_middleware]


def _short(layer: Middleware) -> Middleware:
    cls: Any = layer.cls
    silent = _SILENT.get(cls.__module__)
    if silent is None:
        return layer
    return Middleware(PassBy, layer=partial(cls, *layer.args, **layer.kwargs), silent=silent)
