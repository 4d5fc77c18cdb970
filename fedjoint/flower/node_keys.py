"""The keys of the nodes, and whether a request is signed with one of them."""

from __future__ import annotations

import datetime
import logging
import time
from base64 import b64decode
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from fedjoint.errors import UserError
from fedjoint.flower.badges import plain_key, read_badges
from fedjoint.flower.gate import Scope

log = logging.getLogger("fedjoint.flower")

_MOST_STRANGERS = 100  # that the log names, one line each
_AGAIN = 1.0  # seconds until the folder is read again: keys come and go


class NodeKeys:
    """The keys in a folder of ``NAME/node.pub``.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._read = folder, 0.0
        self._known: set[bytes] = set()
        self._strangers: set[bytes] = set()

    def signed(self, scope: Scope) -> bool:
        """Return whether a request bears a known key, and a fresh signature by it.

        Flower's nodes sign the time; the server behind looks again, and at the node's number.
        """
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        try:
            key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            when = headers[TIMESTAMP_HEADER.lower()]
            age = (now() - datetime.datetime.fromisoformat(when.decode("ascii"))).total_seconds()
            fresh = -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
            if not fresh or not verify_signature(bytes_to_public_key(key), when, signature):
                return False
            return self._knows(plain_key(key))
        except (KeyError, ValueError, TypeError, UnsupportedAlgorithm):
            return False

    def _knows(self, key: bytes) -> bool:
        if key in self._keys():
            return True
        if key not in self._strangers and len(self._strangers) < _MOST_STRANGERS:
            self._strangers.add(key)
            log.warning("a node whose key is not in %s is refused", self._folder)
        return False

    def _keys(self) -> set[bytes]:
        if time.monotonic() - self._read > _AGAIN:
            try:
                self._known = set(read_badges(self._folder))
            except UserError as error:  # those known before stay
                log.warning("%s", error)
            self._read = time.monotonic()
        return self._known
