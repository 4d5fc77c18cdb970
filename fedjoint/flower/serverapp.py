"""The ServerApp of one run, with lines in our format; options of ``flwr-serverapp``."""

from __future__ import annotations

import sys
from functools import partial

from flwr.superlink.cli import flwr_serverapp
from flwr.superlink.grid import http_grid

from fedjoint._util.logs import start_logging
from fedjoint.flower.logs import as_ours

_AGAIN = 0.05  # seconds


def main() -> None:
    """Run the ServerApp."""
    as_ours()
    start_logging()
    # An object that is still on its way is asked for again after a second otherwise.
    http_grid.pull_objects = partial(http_grid.pull_objects, initial_backoff=_AGAIN)
    sys.argv[0] = "flwr-serverapp"
    flwr_serverapp()


if __name__ == "__main__":
    main()
