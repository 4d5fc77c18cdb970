"""What is wrong between a node and its server, said once, and again after a while."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from fedjoint.deploy.address import distrust, parse, speaks_tls
from fedjoint.flower.fleet import AwayError, RefusedError

log = logging.getLogger("fedjoint.deploy")

_FIRST, _MOST = 1.0, 30.0  # seconds between two tries
_REMIND = 600.0  # seconds after which the same trouble is said again


class Trouble:
    """Says why a node is left out, with the server's address and since when.

    Args:
        address: ``host:port`` of the server.
        authority: certificate of the authority that the node trusts; None: no encryption.
    """

    def __init__(self, address: str, authority: Path | None) -> None:
        self._address, self._authority = address, authority
        self._began = self._told = 0.0
        self._reason, self._pause = "", _FIRST

    def say(self, error: AwayError | RefusedError) -> float:
        """Say what is wrong, unless that was said lately; return the seconds until another try."""
        now = time.monotonic()
        self._began = self._began or now
        why = self._explain(error)
        pause, self._pause = self._pause, min(_MOST, 2 * self._pause)
        if why != self._reason or now - self._told > _REMIND:
            level = logging.ERROR if isinstance(error, RefusedError) else logging.WARNING
            since = f" for {now - self._began:.0f} s" if self._reason else ""
            text = "not connected to %s%s: %s; trying again, every %g s at most"
            log.log(level, text, self._address, since, why, _MOST)
            self._told, self._reason = now, why
        return pause

    def over(self) -> None:
        """Say that it is over, if anything was wrong."""
        if self._reason:
            log.info("connected again, after %.0f s", time.monotonic() - self._began)
        self._began, self._reason, self._pause = 0.0, "", _FIRST

    def _explain(self, error: AwayError | RefusedError) -> str:
        host, port = parse(self._address)
        if isinstance(error, AwayError):
            if self._authority and (why := distrust(host, port, self._authority)):
                return why
            if not self._authority and speaks_tls(host, port):
                return "it speaks TLS: give --keys in place of --insecure"
        return str(error)
