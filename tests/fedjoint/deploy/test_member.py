"""What a node does when it is asked to stop, without a server."""

import threading
from types import SimpleNamespace

from fedjoint.deploy import member
from fedjoint.deploy.figures import NodeFigures
from fedjoint.deploy.member import Member


class Fleet:
    """A server with one message, which gets to the reply only after a while."""

    def __init__(self):
        self.address, self.node, self.done, self.left = "server", 0, [], 2
        self.beaten = threading.Event()

    def join(self):
        self.node = 7
        return 7

    def receive(self):
        return 1, "train", "asked"

    def beat(self):
        self.beaten.set()

    def send(self, run, reply, seconds):
        self.done.append("send")

    def arrived(self, run, root):
        self.left -= 1
        self.done.append(f"arrived: {root}")
        return not self.left

    def leave(self):
        self.done.append("leave")


def test_a_node_that_stops_is_there_until_its_last_reply_is_fetched(monkeypatch):
    monkeypatch.setattr(member, "BEAT", 0.01)
    fleet, stop = Fleet(), SimpleNamespace(asked=0)

    def answer(*_):
        stop.asked = 1
        fleet.beaten.clear()
        assert fleet.beaten.wait(60), "a node that is finishing its message is alive"
        return SimpleNamespace(root="root")

    worker, trouble = SimpleNamespace(answer=answer), SimpleNamespace(over=lambda: None)
    Member(fleet, worker, stop, trouble, NodeFigures()).run()
    assert fleet.done == ["send", "arrived: root", "arrived: root", "leave"]
