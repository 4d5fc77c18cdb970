"""Messages of our own engines: who sends them, and what they are numbered."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

_numbers = itertools.count(1)


def be_server(run_id: int = 1) -> None:
    """Let this process create messages, as Flower's runtimes do for a ServerApp."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 0, 0


def number(messages: Iterable[Message]) -> list[Message]:
    """Give every message an id, as a SuperLink does."""
    numbered = list(messages)
    for message in numbered:
        message.metadata.__dict__["_message_id"] = str(next(_numbers))
    return numbered
