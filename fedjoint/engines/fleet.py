"""Flower's own grid, asked for replies more often."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

_FIRST, _MOST = 0.05, 2.0  # seconds between two looks for replies


class FleetGrid:
    """A grid of SuperNodes whose replies are fetched soon after they arrive.

    Flower's own ``send_and_receive`` looks every three seconds, which is most of a short round.

    Args:
        grid: what Flower hands to a ServerApp; everything else is left to it.
    """

    def __init__(self, grid: Grid):
        self._grid = grid

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Send, and return replies as they arrive within ``timeout`` seconds."""
        waiting = {identity for identity in self._grid.push_messages(messages) if identity}
        return self._replies(waiting, timeout)

    def _replies(self, waiting: set[str], timeout: float | None) -> Iterator[Message]:
        end = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST
        while waiting:
            found = list(self._grid.pull_messages(waiting))
            yield from found
            waiting -= {reply.metadata.reply_to_message_id for reply in found}
            if not waiting or (end is not None and time.monotonic() >= end):
                break
            time.sleep(pause)
            pause = min(_MOST, 1.2 * pause)
