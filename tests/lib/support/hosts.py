"""Deployed nodes within this process: they answer as real ones do, unless a test intervenes."""

from __future__ import annotations

from functools import cache

from flwr.app import Error, Message

from fedjoint.config.load import check
from fedjoint.engines.local import LocalGrid
from fedjoint.flower.compat import number
from fedjoint.node.node import Node
from fedjoint.problem import build_problem

SETTINGS = {
    "rounds": 4,
    "data": {"clients": 4, "task_mix": [["digit"]], "test_fraction": 0.7},
    "model": {"backbone": {"options": {"hidden": [4]}}},
    "strategy": {"name": "fedavgm"},  # which has a state of its own
    "output": {"checkpoint_every": 1000},
}


@cache
def problem():
    return build_problem(check(SETTINGS))


class Fleet(LocalGrid):
    """Nodes by number, each with some clients.

    ``meddle(message)`` may return a reply in the place of the node's, or raise.
    """

    def __init__(self, nodes, stores, meddle=lambda message: None):
        super().__init__()
        config, self.meddle = check(SETTINGS), meddle
        self.nodes = {
            node: Node(problem(), config, store, {c: c for c in clients}, True, f"node {node}")
            for (node, clients), store in zip(nodes.items(), stores, strict=True)
        }

    def get_node_ids(self):
        return list(self.nodes)

    def send_and_receive(self, messages, *, timeout=None):
        for message in number(messages):
            node = self.nodes[message.metadata.dst_node_id]
            yield self.meddle(message) or Message(node.handle(message), reply_to=message)


def away(message):
    return Message(Error(5, "the node is gone"), reply_to=message)
