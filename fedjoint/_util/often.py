"""Something that is done again and again, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("fedjoint")


class Often:
    """Does something every so often as long as it is entered, whatever happens meanwhile.

    An error is said once, and does not end it.

    Args:
        act: does it.
        seconds: between two times.
        name: of the thread.
    """

    def __init__(self, act: Callable[[], object], seconds: float, name: str) -> None:
        self._act, self._seconds, self._name = act, seconds, name
        self._ended, self._said = threading.Event(), ""
        self._thread = threading.Thread(target=self._go, daemon=True, name=name)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def __enter__(self) -> Often:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def join(self) -> None:
        """End it, and wait until what is being done is done."""
        self._ended.set()
        self._thread.join()

    def _go(self) -> None:
        while not self._ended.is_set():
            try:
                self._act()
            except Exception as error:
                if str(error) != self._said:
                    self._said = str(error)
                    log.exception("%s: this fails just now, and is tried again", self._name)
            self._ended.wait(self._seconds)
