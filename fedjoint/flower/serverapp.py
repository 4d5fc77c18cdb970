"""The ServerApp of one run, with lines in our format; options of ``flwr-serverapp``."""

from __future__ import annotations

import sys

from flwr.superlink.cli import flwr_serverapp

from fedjoint._util.logs import start_logging
from fedjoint.flower.logs import as_ours


def main() -> None:
    """Run the ServerApp."""
    as_ours()
    start_logging()
    sys.argv[0] = "flwr-serverapp"
    flwr_serverapp()


if __name__ == "__main__":
    main()
