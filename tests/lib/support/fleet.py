"""Nodes with data of their own, in this process; some of them forge what they say."""

from functools import cache

from flwr.app import Error, Message
from support.messages import settings

from fedjoint.config.load import check
from fedjoint.engines.local import LocalGrid
from fedjoint.flower.compat import number
from fedjoint.node.node import Node
from fedjoint.problem import build_problem
from fedjoint.protocol import wire
from fedjoint.protocol.requests import TellRequest

SETTINGS = {
    "rounds": 3,
    "data": {"clients": 4, "task_mix": [["digit"]], "test_fraction": 0.7},
    "model": {"backbone": {"options": {"hidden": [4]}}},
    "output": {"checkpoint_every": 1},
}


class Fleet(LocalGrid):
    """Nodes by number, each a function from a message to replies; who is silent has none."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes, self.asked, self.told = nodes, [], {}

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        for message in messages:
            request = TellRequest.unpack(message)
            self.told.setdefault(message.metadata.dst_node_id, []).append(request.text)
        return []

    def send_and_receive(self, messages, *, timeout=None):
        for message in number(messages):
            node = message.metadata.dst_node_id
            self.asked.append((message.metadata.message_type, node))
            yield from self.nodes.get(node, gone)(message)


def gone(message):
    return [Message(Error(5, "the node is gone"), reply_to=message)]


def silent(message):
    return []


@cache
def problem():
    return build_problem(check(SETTINGS))


def answering(node):
    return lambda message: [Message(node.handle(message), reply_to=message)]


#: by configuration; what a node finds of the model is the same on all
_traits = {}


def honest(config, clients, name):
    places = {client: client for client in clients}
    node, key = Node(problem(), config, None, places, name=name), config.model_dump_json()
    for room in node.rooms.values():  # one, without groups
        if key in _traits:
            room.trainer.traits = _traits[key]
        _traits[key] = room.trainer.traits
    return answering(node)


def forging(node, kind, change):
    """A node whose replies of one kind are changed: ``change(config, arrays by record)``."""

    def answer(message):
        (reply,) = node(message)
        if message.metadata.message_type == kind:
            told = settings(reply)
            records = {n: wire.arrays(reply, n) for n in reply.content.array_records}
            told = change(told, records) or told
            reply = Message(wire.pack(told, **records), reply_to=message)
        return [reply]

    return answer


def drop(name):
    return lambda told, records: {k: v for k, v in told.items() if k != name}


def tell(**values):
    return lambda told, records: told | values


def send(record, name, change):
    def forge(told, records):
        if records[record]:
            records[record] = records[record] | {name: change(records[record][name])}

    return forge
