"""Which requests a SuperLink answers from which peers."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedjoint.flower.bell import Bell
    from fedjoint.flower.node_keys import NodeKeys

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Bytes that a request may have: as many as a message of Flower's.
MOST = 2**31

#: Interfaces of a SuperLink: those of runs, of nodes, who have to prove their keys, of operators.
RUNS, NODES, OPERATORS = "/v1/runtime/", "/v1/fleet/", "/v1/control/"
_DIGITS = 20
_REFUSAL = b"this server takes runs and node keys from its own machine alone"
_NO_KEY = b"this server knows no such key, or the signature is not its own, or too old"
_TOO_LONG = b"a message is no longer than 2 GiB"


class Gate:
    """ASGI middleware that leaves everything but the nodes' own API to this machine.

    Flower asks nobody who submits a run or registers a node's key who he is. And of a node, it
    reads the whole body before it looks for a key: here the key comes first, and no body is longer
    than a message can be.

    Args:
        app: the SuperLink.
        keys: of the nodes; None: they have none.
        bell: lets requests for messages wait; None: they are answered at once.
    """

    def __init__(self, app: App, keys: NodeKeys | None = None, bell: Bell | None = None):
        self.app, self.keys, self.bell = app, keys, bell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif not allowed(scope):
            await refuse(scope, send, 403, _REFUSAL)
        elif self.keys and scope["path"].startswith(NODES) and not self.keys.signed(scope):
            await refuse(scope, send, 401, _NO_KEY)
        elif _length(scope) > MOST:
            await refuse(scope, send, 413, _TOO_LONG)
        else:
            await self._answer(scope, _counted(receive), send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.bell:
            await self.app(scope, receive, send)
        elif waited := await self.bell.wait(scope, receive):
            await self.app(scope, waited, send)
            self.bell.ring(scope)


async def refuse(scope: Scope, send: Send, status: int, why: bytes) -> None:
    """Answer a request without a look at its body."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why})


def _length(scope: Scope) -> int:
    """Return how long a request says that its body is; 0 where it says nothing."""
    said = dict(scope["headers"]).get(b"content-length", b"0")
    return int(said) if said.isdigit() and len(said) < _DIGITS else MOST + 1


def _counted(receive: Receive) -> Receive:
    """Return a ``receive`` that hangs up once a body is longer than a message can be."""
    seen = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal seen
        event = await receive()
        seen += len(event.get("body", b""))
        return event if seen <= MOST else {"type": "http.disconnect"}

    return counted


def allowed(scope: Scope) -> bool:
    """Return whether a request may pass: it is a node's, or comes from this machine."""
    if scope["path"].startswith(NODES):
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
