"""A round of a deployment in which everybody is away is waited for, and not spent."""

from __future__ import annotations

import copy
import logging
import time

from fedjoint._util.logs import event
from fedjoint.server.collect import Collector
from fedjoint.server.run import Run

log = logging.getLogger("fedjoint.server.round")

#: What is said of a node that its server takes for gone.
AWAY = "the node is gone"

_AGAIN = 1.0  # seconds


class Patience:
    """Says whether a round is to be done again; one object for each round.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._until = run, time.monotonic() + run.roster.wait
        self._told = False

    def waits(self, round: int, collected: Collector) -> bool:
        """Wait a little where every node is gone, and say that; not for longer than a round may.

        Args:
            round: the round.
            collected: the replies to it.
        """
        run, away = self._run, [f for f in collected.failed if f.reason == AWAY]
        if not run.roster.deployed or not away or len(away) < len(collected.failed):
            return False
        if len(collected.trained) or time.monotonic() > self._until:
            return False
        if not self._told:
            text = f"round {round}: every node is away; the round waits for them"
            event(log, logging.WARNING, "away", text, round=round)
            self._told = True
        run.merging.state = copy.deepcopy(run.before)  # a choice of clients may have changed it
        time.sleep(_AGAIN)
        return True
