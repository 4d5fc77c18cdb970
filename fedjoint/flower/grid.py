"""Flower's own grid, quicker, with errors by the node that they concern."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedjoint._util.wording import plain
from fedjoint.flower.compat import answers
from fedjoint.protocol.wire import bundle

_FIRST, _MOST = 0.05, 2.0  # seconds between two looks for replies

# What Flower says of messages, in our terms.
_SAID = {
    ErrorCode.MESSAGE_UNAVAILABLE: "no reply within the time limit",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "no reply within the time limit",
    ErrorCode.NODE_UNAVAILABLE: "the node is gone",
}


class FleetGrid:
    """A grid of SuperNodes whose replies are fetched soon after they arrive, in few requests.

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
        sent = list(messages)
        for message in sent:
            message.content = bundle(message.content)
        identities = self._grid.push_messages(sent)
        waiting = {i: message for i, message in zip(identities, sent, strict=False) if i}
        return self._replies(waiting, timeout)

    def _replies(self, waiting: dict[str, Message], timeout: float | None) -> Iterator[Message]:
        end = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST
        while waiting:
            for reply in self._grid.pull_messages(set(waiting)):
                message = waiting.pop(reply.metadata.reply_to_message_id, None)
                if message is not None:
                    yield _named(reply, message)
            if not waiting or (end is not None and time.monotonic() >= end):
                break
            time.sleep(pause)
            pause = min(_MOST, 1.2 * pause)


def _named(reply: Message, message: Message) -> Message:
    """Return a reply with its source: the SuperLink replies in its own name for a lost node."""
    answers(reply, message)
    if reply.has_error():
        code, said = reply.error.code, str(reply.error.reason)
        # Flower wraps what the app raised: <class 'ValueError'>:<'the text'>
        wrapped = re.fullmatch(r"<class '[^']*'>:<'(.*)'>", said, re.DOTALL)
        reply.error = Error(code, plain(_SAID.get(code) or (wrapped[1] if wrapped else said)))
    return reply
