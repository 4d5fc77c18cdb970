"""A local method that waits, as on a machine that has other things to do."""

import os
import time
from pathlib import Path

from fedjoint.training.method import LocalMethod

#: how a run names the method
BUSY = f"local.method={__file__}:Busy"


class Busy(LocalMethod):
    """Does not train while the file is there that ``BUSY`` names in its machine's environment.

    It leaves a file beside it, whose name ends in ``.seen``, as soon as it waits.
    """

    def train(self, job):
        busy = Path(os.environ.get("BUSY", "none"))
        while busy.exists():
            busy.with_suffix(".seen").touch()
            time.sleep(0.1)
        return super().train(job)


def wait_within_a_round(site):
    """Run on two nodes of a client each; return the file that node a waits for in a round."""
    busy = site.folder / "busy"
    settings = ["data.clients=2", "local.epochs=1", "evaluate.every=1000", "rounds=1000", BUSY]
    site.server()
    site.node("a", "0", BUSY=str(busy))
    site.node("b", "1")
    site.deploy("deploy", "digits", *(word for s in settings for word in ("--set", s)))
    site.until(lambda: site.trained(0, after=0))
    busy.touch()
    site.until(busy.with_suffix(".seen").exists)
    return busy
