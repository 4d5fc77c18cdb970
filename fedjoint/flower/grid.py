"""Flower's own grid, quicker, with errors by the node that they concern."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import RunNotRunningException

from fedjoint._util.wording import plain
from fedjoint.errors import UserError
from fedjoint.flower.compat import answers
from fedjoint.protocol.requests import QUERY, TRAIN
from fedjoint.protocol.wire import bundle
from fedjoint.server.patience import AWAY
from fedjoint.server.stopping import StoppedError

_FIRST, _MOST = 0.05, 2.0  # seconds between two looks for replies
_HELD = 0.5  # seconds: a look that took longer has waited for a reply at the server

# What Flower says of messages, in our terms.
_SAID = {
    ErrorCode.MESSAGE_UNAVAILABLE: "no reply within the time limit",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "no reply within the time limit",
    ErrorCode.NODE_UNAVAILABLE: AWAY,
}


class FleetGrid:
    """A grid of nodes whose replies are fetched soon after they arrive, in few requests.

    Flower's own ``send_and_receive`` looks every three seconds, which is most of a short round.

    Args:
        grid: what Flower hands to a ServerApp; everything else is left to it.
        stopping: whether somebody asks the run to stop.

    Attributes:
        early: whether it waits for what the run can do without: it may be stopped just now.
    """

    def __init__(self, grid: Grid, stopping: Callable[[], bool] = lambda: False):
        self._grid, self._stopping, self.early = grid, stopping, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def get_node_ids(self) -> Iterable[int]:
        """Return the numbers of the nodes that are here.

        Raises:
            StoppedError: the run is to stop, and no round has begun.
        """
        self._check()
        with self._waiting(early=True):
            return self._grid.get_node_ids()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Send, and return replies as they arrive within ``timeout`` seconds.

        Raises:
            StoppedError: the run is to stop, and no reply to these messages counts yet.
        """
        sent = list(messages)
        for message in sent:
            message.content = bundle(message.content)
        early = all(message.metadata.message_type in (QUERY, TRAIN) for message in sent)
        with self._waiting(early):
            identities = self._grid.push_messages(sent)
        waiting = {i: message for i, message in zip(identities, sent, strict=False) if i}
        return self._replies(waiting, timeout, early)

    def _check(self) -> None:
        if self._stopping():
            raise StoppedError

    @contextmanager
    def _waiting(self, early: bool) -> Iterator[None]:
        self.early = early
        try:
            yield
        except RunNotRunningException:  # as after ``flwr stop``
            raise StoppedError if early else UserError("the server has ended the run") from None
        finally:
            self.early = False

    def _replies(
        self, waiting: dict[str, Message], timeout: float | None, early: bool
    ) -> Iterator[Message]:
        end = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST / 2
        while waiting:
            if early:
                self._check()
            began = time.monotonic()
            with self._waiting(early):
                found = list(self._grid.pull_messages(set(waiting)))
            for reply in found:
                message = waiting.pop(reply.metadata.reply_to_message_id, None)
                if message is not None:
                    yield _named(reply, message)
            if not waiting or (end is not None and time.monotonic() >= end):
                break
            pause = _FIRST if time.monotonic() - began > _HELD else min(_MOST, 1.2 * pause)
            with self._waiting(early):
                time.sleep(pause)


def _named(reply: Message, message: Message) -> Message:
    """Return a reply with its source: the SuperLink replies in its own name for a lost node."""
    answers(reply, message)
    if reply.has_error():
        code, said = reply.error.code, str(reply.error.reason)
        # Flower wraps what the app raised: <class 'ValueError'>:<'the text'>
        wrapped = re.fullmatch(r"<class '[^']*'>:<'(.*)'>", said, re.DOTALL)
        reply.error = Error(code, plain(_SAID.get(code) or (wrapped[1] if wrapped else said)))
    return reply
