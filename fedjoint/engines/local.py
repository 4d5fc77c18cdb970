"""What our own grids share: no run to look up, messages numbered here, replies in one go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from fedjoint.flower.compat import Run, be_server, empty_run


class LocalGrid(Grid):
    """Base of the grids in this machine or cluster; a subclass sends and receives."""

    def __init__(self) -> None:
        be_server()

    def set_run(self, run: Run) -> None:
        """Take the run that Flower names; there is one run per grid."""

    @property
    def run(self) -> Run:
        """The run of this grid."""
        return empty_run()

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: replies are not kept for a later pull."""
        raise NotImplementedError("use send_and_receive: this grid keeps no replies")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse: replies are not kept for a later pull."""
        raise NotImplementedError("use send_and_receive: this grid keeps no replies")


def simulated_context(node: int, nodes: int) -> Context:
    """Return the context of a simulated node, as Flower's own simulation makes it."""
    own: dict[str, Any] = {"partition-id": node - 1, "num-partitions": nodes}
    return Context(run_id=1, node_id=node, node_config=own, state=RecordDict(), run_config={})
