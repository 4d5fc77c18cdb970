"""Everything in one process: for debugging with a plain debugger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedjoint._util.threads import cpu_threads
from fedjoint.engines.base import Engine, MakeApp
from fedjoint.engines.local import LocalGrid, simulated_context
from fedjoint.flower.compat import number


class Inline(Engine):
    """One node, in this process: for a debugger, and for what is too small for workers."""

    @contextmanager
    def grid(self, make_app: MakeApp) -> Iterator[Grid]:
        yield InlineGrid(make_app(), simulated_context(1, 1))


class InlineGrid(LocalGrid):
    """One node, in this process.

    Args:
        app: the ClientApp.
        context: its node's context.
    """

    def __init__(self, app: ClientApp, context: Context):
        super().__init__()
        self.app, self.context = app, context

    def get_node_ids(self) -> Iterable[int]:
        """Return the only node."""
        return [1]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Run the app on each message; errors become error replies, as over a network."""
        for message in number(messages):
            try:
                with cpu_threads(1):
                    reply = self.app(message, self.context)
            except Exception as error:
                reply = Message(Error(code=2, reason=str(error)), reply_to=message)
            yield reply
