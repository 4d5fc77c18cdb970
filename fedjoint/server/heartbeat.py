"""A sign of life of a server, also within a long round."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds


class Heartbeat:
    """Calls ``beat`` again and again in a thread of its own, until the end.

    Args:
        beat: what to do; never done twice at once.
    """

    def __init__(self, beat: Callable[[], None]):
        self._beat, self._lock, self._ended = beat, threading.Lock(), threading.Event()
        self._last = -math.inf
        self._thread = threading.Thread(target=self._go, daemon=True, name="heartbeat")

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def beat(self, after: float = 0.0) -> None:
        """Beat now, unless the last time was less than ``after`` seconds ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._last >= after:
                self._beat()
                self._last = now

    def _go(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                self.beat()
            except Exception as error:  # a full disk; the run itself will say so
                log.warning("no sign of life: %s", error)
