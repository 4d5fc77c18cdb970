"""Flower's own classes without a public name, and what its runtimes do to messages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from flwr.app import Message
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["Run", "answers", "be_server", "empty_run", "number"]

_numbers = itertools.count(1)


def be_server(run_id: int = 1) -> None:
    """Let this process create messages, as Flower's runtimes do for a ServerApp."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 0, 0


def empty_run() -> Run:
    """Return a run of which Flower knows nothing but the id."""
    return Run.create_empty(1)


def number(messages: Iterable[Message]) -> list[Message]:
    """Give every message an id, as a SuperLink does."""
    numbered = list(messages)
    for message in numbered:
        message.metadata.__dict__["_message_id"] = str(next(_numbers))
    return numbered


def answers(reply: Message, message: Message) -> None:
    """Make ``reply`` come from the node that ``message`` went to, and be about the same group."""
    reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
    reply.metadata.__dict__["_group_id"] = message.metadata.group_id
