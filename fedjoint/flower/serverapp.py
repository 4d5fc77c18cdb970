"""The ServerApp of one run, with lines in our format; options of ``flwr-serverapp``."""

from __future__ import annotations

import io
import logging
import sys
import threading
from functools import partial

from flwr.superlink.cli import flwr_serverapp
from flwr.superlink.grid import http_grid

from fedjoint._util.logs import start_logging
from fedjoint.errors import said
from fedjoint.flower.logs import as_ours

log = logging.getLogger("fedjoint.flower")

_AGAIN = 0.05  # seconds


def main() -> None:
    """Run the ServerApp."""
    as_ours()
    start_logging()
    threading.excepthook = _say
    sys.stdout = Lines()
    # An object that is still on its way is asked for again after a second otherwise.
    http_grid.pull_objects = partial(http_grid.pull_objects, initial_backoff=_AGAIN)
    sys.argv[0] = "flwr-serverapp"
    flwr_serverapp()


class Lines(io.TextIOBase):
    """Logs what is printed, by Flower or a plug-in, line by line."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        """Log the lines that end; keep the last one until it does."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            log.info("%s", line)
        return len(text)


def _say(ended: threading.ExceptHookArgs) -> None:
    """Say in a line why a thread ended: Flower's do where the server has ended the run."""
    name = ended.thread.name if ended.thread else "a thread"
    log.warning("%s ended: %s", name, said(ended.exc_value) if ended.exc_value else "for no reason")


if __name__ == "__main__":
    main()
