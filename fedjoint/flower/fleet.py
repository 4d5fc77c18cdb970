"""A node's connection to its SuperLink: Flower's own client, whose errors say what to do.

A stock SuperNode starts a process for every message. This one hands messages to whoever asks for
them, and runs no code that a server sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedjoint.errors import UserError, said
from fedjoint.flower.bell import WAITS
from fedjoint.flower.parcels import Parcel

BEAT = 10.0  # seconds between two signs of life: the least that a SuperLink accepts

_AGAIN = 0.05  # seconds before an object that is not there yet is asked for again
_CLOCKS = 4.0  # seconds by which clocks may surely differ; a SuperLink allows for five

_UNKNOWN = (
    "it does not know this node's key, or has revoked it: its operator has to put node.pub into "
    "its keys/nodes/NAME"
)

Answer = TypeVar("Answer")


class AwayError(Exception):
    """The server cannot be reached just now; the text says why."""


class RefusedError(Exception):
    """The server refuses this node; the text says why, and what cures it."""


class GoneError(Exception):
    """The run of a message is over: nobody waits for the reply."""


class _Waits:
    """Says in requests of a node, where ``now`` is true, that they may wait for a message."""

    now = False

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Say it."""
        if self.now:
            context.request.headers[WAITS] = "1"
        return call_next(context)


class Fleet:
    """One node's connection to a SuperLink.

    Args:
        address: ``host:port``.
        authority: certificate of the authority that signed the server's; None: no encryption.
        key: file of the node's private key; None: a new key, which the server has to accept.

    Raises:
        UserError: ``key`` is no key of ``fedjoint keys``.
    """

    def __init__(self, address: str, authority: Path | None, key: Path | None) -> None:
        self.address, self.node = address, 0
        private, public = generate_key_pairs() if key is None else _load(key)
        self._anonymous, self._public = key is None, public_key_to_bytes(public)
        self._registered = not self._anonymous
        signs = NodeAuthHttpInterceptor(private, public)
        version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
        self._waits = _Waits()
        trust = None if authority is None else str(authority)
        self._client = FleetHttpClient.from_server_address(
            address, authority is None, trust, interceptors=[version, signs, self._waits]
        )

    def join(self) -> int:
        """Tell the server that this node is here; return the number that it has there.

        Raises:
            AwayError: the server cannot be reached.
            RefusedError: it does not know the node's key, or takes none without.
        """
        if not self._registered:
            register = RegisterNodeFleetRequest(public_key=self._public)
            self._ask(self._client.RegisterNode, register)
            self._registered = True
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=BEAT)
        self.node = self._ask(self._client.ActivateNode, request).node_id
        return self.node

    def forget(self) -> None:
        """Forget what the server knew of this node, as it knows that no more."""
        self.node, self._registered = 0, not self._anonymous

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            AwayError: the server cannot be reached.
            RefusedError: it knows this node no more.
        """
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=BEAT)
        if not self._ask(self._client.SendNodeHeartbeat, request).success:
            raise RefusedError(f"the server at {self.address} knows this node no more")

    def receive(self) -> tuple[int, str, Parcel] | None:
        """Return the number of a run, and a message's kind and all of it; None: there is none.

        Where there was none the last time, the server is asked to wait for one, see
        :class:`fedjoint.flower.bell.Bell`.

        Raises:
            AwayError: the server cannot be reached.
            RefusedError: it knows this node no more.
        """
        found = self._ask(self._client.PullMessages, PullMessagesRequest(node=self._node))
        self._waits.now = not found.messages_list
        if not found.messages_list:
            return None
        head, tree = found.messages_list[0], found.message_object_trees[0]
        run = head.metadata.run_id
        names = dict.fromkeys(each.object_id for each in iterate_object_tree(tree))
        try:
            objects = {name: self._pull(run, name) for name in names}
            request = ConfirmMessageReceivedRequest(
                node=self._node, run_id=run, message_object_id=tree.object_id
            )
            self._ask(self._client.ConfirmMessageReceived, request)
        except GoneError:
            return None
        parcel = Parcel(head.SerializeToString(), tree.SerializeToString(), objects)
        return run, head.metadata.message_type, parcel

    def send(self, run: int, reply: Parcel, seconds: float) -> None:
        """Send a reply.

        Args:
            run: number of the run.
            reply: the message.
            seconds: how long it took.

        Raises:
            AwayError: the server cannot be reached.
            RefusedError: it knows this node no more.
            GoneError: the run is over.
        """
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[Message.FromString(reply.head)],
            message_object_trees=[ObjectTree.FromString(reply.tree)],
            clientapp_runtime_list=[seconds],
        )
        wanted = self._ask(self._client.PushMessages, request)
        for name in wanted.objects_to_push:
            push = PushObjectRequest(
                node=self._node,
                run_id=run,
                object_id=name,
                object_content=reply.objects[name],
                session_id=wanted.session_id,
            )
            self._ask(self._client.PushObject, push)

    def arrived(self, run: int, reply: str) -> bool:
        """Return whether the run has a reply that was sent, or is over.

        Args:
            run: number of the run.
            reply: id of the reply's root; the server forgets it with the arrival.

        Raises:
            AwayError: the server cannot be reached.
            RefusedError: it knows this node no more.
        """
        request = PullObjectRequest(node=self._node, run_id=run, object_id=reply)
        try:
            return not self._ask(self._client.PullObject, request).object_found
        except GoneError:
            return True

    def leave(self) -> None:
        """Tell the server that this node goes, and close the connection.

        Raises:
            AwayError: the server cannot be reached.
            RefusedError: it knows this node no more.
        """
        try:
            if self.node:
                request = DeactivateNodeRequest(node_id=self.node)
                self._ask(self._client.DeactivateNode, request)
            if self.node and self._anonymous:
                other = UnregisterNodeFleetRequest(node_id=self.node)
                self._ask(self._client.UnregisterNode, other)
        finally:
            self._client.close()

    @property
    def _node(self) -> Node:
        return Node(node_id=self.node)

    def _pull(self, run: int, name: str) -> bytes:
        request = PullObjectRequest(node=self._node, run_id=run, object_id=name)
        while True:
            found = self._ask(self._client.PullObject, request)
            if not found.object_found:
                raise GoneError("an object of the message is gone")
            if found.object_available:
                return bytes(found.object_content)
            time.sleep(_AGAIN)  # the server is still writing it

    def _ask(self, call: Callable[[Any], Answer], request: Any) -> Answer:
        asked = time.time()
        try:
            return call(request)
        except httpx.ConnectError as error:
            raise AwayError(_unreachable(str(error))) from None
        except httpx.TransportError as error:
            raise AwayError(f"the connection broke ({said(error)})") from None
        except httpx.HTTPStatusError as error:
            raise _refusal(error.response, asked) from None
        except ValueError:
            raise AwayError("what answers there is no fedjoint server") from None


def _refusal(response: httpx.Response, asked: float) -> Exception:
    """Return what a server's refusal means for a node."""
    code, status = _code(response), response.status_code
    if code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:
        return GoneError("the run is over")
    if code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        return RefusedError(_UNKNOWN)
    if code == ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED:
        return RefusedError("it takes nodes with keys alone: give --keys")
    if status == httpx.codes.UNAUTHORIZED:
        if (apart := _apart(response, asked)) > _CLOCKS:
            return RefusedError(
                f"the clocks of the server and of this machine are {apart:.0f} seconds apart: "
                "set them right"
            )
        return RefusedError(_UNKNOWN)
    if status in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
        return AwayError("what answers there is no fedjoint server; fix --server")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return AwayError(f"it answers with HTTP status {status}")
    return RefusedError(f"it answers with HTTP status {status}: {response.text[:200]}")


def _unreachable(why: str) -> str:
    if "refused" in why:
        return "nobody listens there; start the server, or fix --server"
    if "Name or service" in why or "nodename" in why or "name resolution" in why:
        return "there is no machine of that name; fix --server"
    return f"it cannot be reached ({why})"


def _code(response: httpx.Response) -> int | None:
    error = FlowerError.from_json(response.text)
    return None if error is None else int(error.code)


def _apart(response: httpx.Response, asked: float) -> float:
    """Return the seconds between the server's clock and ours; 0 where it does not say.

    Args:
        response: of the server.
        asked: when it was asked: the answer may have taken long.
    """
    try:
        theirs = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return 0.0
    return max(asked - theirs, theirs - time.time(), 0.0)


def _load(path: Path) -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]:
    try:
        private = load_ssh_private_key(path.read_bytes(), None)
    except ValueError:
        private = None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise UserError(f"{path}: not a node's key; copy it again, or make one with fedjoint keys")
    return private, private.public_key()
