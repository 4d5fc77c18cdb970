"""A message as bytes: what a node receives, hands to its worker, and sends back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from multiprocessing.connection import Connection

from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity


@dataclass(frozen=True)
class Parcel:
    """A message.

    Attributes:
        head: the message without its content, as Flower's protobuf.
        tree: which objects the content has, as Flower's protobuf.
        objects: id -> object.
    """

    head: bytes
    tree: bytes
    objects: dict[str, bytes]

    @classmethod
    def of(cls, message: Message) -> Parcel:
        """Pack a message."""
        message.metadata.__dict__["_message_id"] = message.object_id
        head = message_to_proto(remove_content_from_message(message)).SerializeToString()
        tree = get_object_tree(message).SerializeToString()
        objects = {name: each.deflate() for name, each in get_all_nested_objects(message).items()}
        return cls(head, tree, objects)

    @property
    def root(self) -> str:
        """The id of the object that is the message itself."""
        return str(ObjectTree.FromString(self.tree).object_id)

    def message(self) -> Message:
        """Unpack the message.

        Raises:
            ValueError: it is damaged.
        """
        message = inflate_object_from_contents(self.root, dict(self.objects))
        if not isinstance(message, Message):
            raise ValueError(f"{type(message).__name__} in place of a message")
        message.metadata.__dict__["_message_id"] = self.root
        return message

    def send(self, to: Connection) -> None:
        """Send it through a pipe."""
        to.send_bytes(json.dumps(list(self.objects)).encode())
        for part in (self.head, self.tree, *self.objects.values()):
            to.send_bytes(part)

    @classmethod
    def receive(cls, sender: Connection) -> Parcel:
        """Take one from a pipe.

        Raises:
            EOFError: the other end is gone.
        """
        names = json.loads(sender.recv_bytes())
        head, tree = sender.recv_bytes(), sender.recv_bytes()
        return cls(head, tree, {name: sender.recv_bytes() for name in names})


def be_node(run_id: int, node_id: int) -> None:
    """Let this process create messages, as Flower's runtimes do for a ClientApp."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, 0


def failure(reason: str, reply_to: Message) -> Message:
    """Return the reply that says why there is none."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=reply_to)
