"""Replies from Flower's grid: each by the node that was asked, errors in plain words."""

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode

from fedjoint.flower.compat import be_server, number
from fedjoint.flower.grid import FleetGrid
from fedjoint.protocol.wire import pack


@pytest.fixture(autouse=True)
def server():
    be_server()


class SuperLink:
    """Answers what it is told to; one reply for each look."""

    def __init__(self, answer):
        self.answer, self.waiting = answer, []

    def push_messages(self, messages):
        self.waiting = number(messages)
        return [None if m.metadata.dst_node_id == 9 else m.metadata.message_id for m in messages]

    def pull_messages(self, identities):
        due = [m for m in self.waiting if m.metadata.message_id in identities][:1]
        self.waiting = [m for m in self.waiting if m not in due]
        return [reply for m in due for reply in self.answer(m)]


def ask(answer, nodes):
    asked = [Message(pack({}), node, "query") for node in nodes]
    replies = FleetGrid(SuperLink(answer)).send_and_receive(asked, timeout=0.3)
    return [(r.metadata.src_node_id, r.error.reason if r.has_error() else None) for r in replies]


def failing(code, reason, source=None):
    def answer(message):
        reply = Message(Error(code, reason), reply_to=message)
        if source is not None:
            reply.metadata.__dict__["_src_node_id"] = source
        return [reply]

    return answer


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (ErrorCode.NODE_UNAVAILABLE, "the node is gone"),
        (ErrorCode.MESSAGE_UNAVAILABLE, "no reply within the time limit"),
    ],
)
def test_an_error_of_the_superlink_is_the_node_s(code, said):
    answer = failing(code, "Error: whatever", SUPERLINK_NODE_ID)
    assert ask(answer, [7, 1234]) == [(7, said), (1234, said)]


def test_what_an_app_raised_is_said_in_its_own_words():
    raised = "<class 'fedjoint.errors.UserError'>:<'node west: no\x1b[31m such\nfile'>"
    answer = failing(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, raised)
    assert ask(answer, [7]) == [(7, "node west: no?[31m such file")]


def test_replies_nobody_asked_for_and_messages_not_sent_are_nobody_s():
    def answer(message):
        stray = Message(RecordDict(), reply_to=message)
        stray.metadata.__dict__["_reply_to_message_id"] = "another"
        return [stray, Message(RecordDict(), reply_to=message)]

    assert ask(answer, [9, 7, 8]) == [(7, None), (8, None)]
