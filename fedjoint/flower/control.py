"""A SuperLink's interface for operators: nodes, and runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

from fedjoint.errors import UserError, said

Answer = TypeVar("Answer")


class SlowError(UserError):
    """The server is there, and does not answer in time."""


@dataclass(frozen=True)
class KnownNode:
    """A node that a server knows.

    Attributes:
        number: that it has there.
        name: under which its key was registered; empty where it has none.
        state: ``registered`` (it never came), ``online``, ``offline`` or ``unregistered``.
        key: its public key.
        since: when it was last heard of or changed its state, ISO 8601; empty: never.
    """

    number: int
    name: str
    state: str
    key: bytes
    since: str


class Control:
    """An operator's connection to a SuperLink.

    Args:
        address: ``host:port``.
        authority: certificate of the authority that signed the server's; None: no encryption.
    """

    def __init__(self, address: str, authority: Path | None) -> None:
        self._address = address
        trust = None if authority is None else str(authority)
        version = RuntimeVersionHttpInterceptor(component_name="flwr")
        self._client = ControlHttpClient.from_server_address(
            address, authority is None, trust, interceptors=[version]
        )

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def nodes(self) -> list[KnownNode]:
        """Return the nodes that the server knows, or has known.

        Raises:
            UserError: the server does not answer.
        """
        found = self._ask(self._client.ListNodes, ListNodesRequest()).nodes_info
        return [
            KnownNode(
                node.node_id,
                node.name,
                node.status,
                node.public_key,
                node.unregistered_at or node.last_deactivated_at or node.last_activated_at,
            )
            for node in found
        ]

    def register(self, name: str, key: bytes) -> bool:
        """Make the server know a node's key; return False where it has known that already.

        Raises:
            UserError: it refuses the key, or does not answer.
        """
        try:
            self._ask(self._client.RegisterNode, RegisterNodeRequest(public_key=key, name=name))
        except _RefusalError as error:
            if error.code == ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                return False
            raise
        return True

    def revoke(self, number: int) -> None:
        """Make the server forget a node, for good: its key is never taken again.

        Raises:
            UserError: there is no such node, or the server does not answer.
        """
        self._ask(self._client.UnregisterNode, UnregisterNodeRequest(node_id=number))

    def status(self, run: int) -> str:
        """Return a run's status: ``running``, ``finished:completed``, ``unknown`` or another.

        Raises:
            SlowError: the server is too busy to answer.
            UserError: it does not answer.
        """
        try:
            found = self._ask(self._client.ListRuns, ListRunsRequest(run_id=run)).run_dict
        except _RefusalError as error:
            if error.code == ApiErrorCode.RUN_ID_NOT_FOUND:
                return "unknown"  # its database is another than when the run was started
            raise
        status = found[run].status
        return ":".join(filter(None, (status.status, status.sub_status)))

    def stop(self, run: int) -> None:
        """End a run at once, or have one that died count as ended.

        Raises:
            UserError: there is no such run, or the server does not answer.
        """
        try:
            self._ask(self._client.StopRun, StopRunRequest(run_id=run))
        except _RefusalError as error:
            if error.code != ApiErrorCode.RUN_ALREADY_FINISHED:
                raise

    def _ask(self, call: Callable[[Any], Answer], request: Any) -> Answer:
        try:
            return call(request)
        except httpx.ReadTimeout:
            raise SlowError(f"the server at {self._address} is too busy to answer") from None
        except httpx.TransportError as error:
            raise UserError(
                f"the server at {self._address} does not answer: {said(error)}"
            ) from None
        except httpx.HTTPStatusError as error:
            answer = error.response
            told = FlowerError.from_json(answer.text)
            text = told.message if told else f"HTTP {answer.status_code}: {answer.text[:200]}"
            raise _RefusalError(
                f"the server at {self._address} refuses: {text}", told.code if told else 0
            ) from None


class _RefusalError(UserError):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code
