"""Who asks a SuperLink for messages waits until there may be some, in place of asking again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import MutableMapping
from typing import Any

from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, TASK_TOKEN_HEADER

from fedjoint.flower.gate import NODES, RUNS, Receive, Scope

#: The header of a request for messages that may wait: a node's, whose last one found none.
WAITS = "fedjoint-waits"

MOST = 3.0  # seconds

_REST = 0.03  # seconds in which the objects of a message arrive one after the other
_PEERS = 10_000  # that are remembered

_WHO = {RUNS: TASK_TOKEN_HEADER.lower(), NODES: FLEET_HTTP_PUBLIC_KEY_HEADER.lower()}
_PULL = "pull-messages"
_PUSHES = ("push-messages", "push-object")


class Bell:
    """Rings for runs when a node has pushed something, and for nodes when a run has.

    Flower has no news for those who wait: they ask again and again, which is most of what a
    server does in a short round, and most of what a round takes beside training.
    """

    def __init__(self) -> None:
        self._rung: Counter[str] = Counter()
        # Who asks -> how often it had rung when the newest request was let in.
        self._heard: dict[tuple[str, bytes], int] = {}
        self._news: dict[str, asyncio.Event] = {}

    async def wait(self, scope: Scope, receive: Receive) -> Receive | None:
        """Let a request for messages wait until something has come since this peer's last one.

        Args:
            scope: of the request.
            receive: what it receives.

        Returns:
            What it receives from then on; None: the peer has hung up.
        """
        side = _side(scope["path"], (_PULL,))
        if not side:
            return receive
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        peer = side, headers.get(_WHO[side], b"")
        if (side == RUNS or WAITS in headers) and self._heard.get(peer) == self._rung[side]:
            body = await receive()
            if not body.get("more_body") and await _hangs_up(receive, self._next(side)):
                return None
            receive = _again(body, receive)
        if len(self._heard) >= _PEERS:
            self._heard.clear()
        self._heard[peer] = self._rung[side]
        return receive

    def _next(self, side: str) -> asyncio.Event:
        return self._news.setdefault(side, asyncio.Event())

    def ring(self, scope: Scope) -> None:
        """Wake those that wait for what a request has brought."""
        side = _side(scope["path"], _PUSHES)
        if side:
            other = NODES if side == RUNS else RUNS
            self._rung[other] += 1
            self._news.pop(other, asyncio.Event()).set()


async def _hangs_up(receive: Receive, news: asyncio.Event) -> bool:
    """Wait for news, for so long; return whether the peer hangs up meanwhile."""
    end, rings = (asyncio.ensure_future(each) for each in (receive(), news.wait()))
    # A server makes some messages itself, such as that a node is gone: hence the limit.
    await asyncio.wait((end, rings), timeout=MOST, return_when=asyncio.FIRST_COMPLETED)
    rang, gone = rings.done(), end.done()
    for task in (end, rings):
        task.cancel()
    if rang and not gone:
        await asyncio.sleep(_REST)
    return gone


def _again(first: MutableMapping[str, Any], receive: Receive) -> Receive:
    """Return a ``receive`` that begins with what was received already."""
    left = [first]

    async def again() -> MutableMapping[str, Any]:
        return left.pop() if left else await receive()

    return again


def _side(path: str, ends: tuple[str, ...]) -> str:
    """Return whose interface a request is to, if it is for one of ``ends``; empty else."""
    return next((side for side in (RUNS, NODES) if path in [side + end for end in ends]), "")
