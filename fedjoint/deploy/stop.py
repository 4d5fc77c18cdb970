"""A signal to stop, which ends what goes on only where it comes twice."""

from __future__ import annotations

import signal
import time
from typing import Any

_NAP = 0.2  # seconds: the longest sleep that a signal does not end


class Stop:
    """Counts the signals to stop that have come to this process since it was entered.

    Attributes:
        asked: how many: the first one asks to finish what is being done, a second to drop that.
    """

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> Stop:
        self._before = {
            kind: signal.signal(kind, self._ask) for kind in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for signal_kind, handler in self._before.items():
            signal.signal(signal_kind, handler)

    def nap(self, seconds: float) -> None:
        """Sleep, but not beyond a signal."""
        end = time.monotonic() + seconds
        while not self.asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _NAP))

    def _ask(self, *_: Any) -> None:
        self.asked += 1
