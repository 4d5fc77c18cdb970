"""Which requests a SuperLink answers from which peers."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_NODES = "/v1/fleet/"  # where a node has to prove its key
_REFUSAL = b"this server takes runs and node keys from its own machine alone"


class Gate:
    """ASGI middleware that leaves everything but the nodes' own API to this machine.

    Flower asks nobody who submits a run or registers a node's key who he is.

    Args:
        app: the SuperLink.
    """

    def __init__(self, app: App):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or allowed(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})


def allowed(scope: Scope) -> bool:
    """Return whether a request may pass: it is a node's, or comes from this machine."""
    if scope["path"].startswith(_NODES):
        return True
    # A proxy on this machine speaks for others; and what it says of them may replace the peer.
    if any(_forwarded(name) for name, _ in scope["headers"]):
        return False
    peer, own = (scope.get(end) or ("",) for end in ("client", "server"))
    try:
        address = ipaddress.ip_address(peer[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    # A server on one address is reached from there by the processes that it starts.
    return (mapped or address).is_loopback or peer[0] == own[0]


def _forwarded(name: bytes) -> bool:
    return name.lower() in (b"forwarded", b"x-real-ip", b"via") or name.lower().startswith(
        b"x-forwarded-"
    )
