"""A local method that waits, as on a machine that has other things to do."""

import os
import time
from pathlib import Path

from fedjoint.training.method import LocalMethod

#: how a run names the method
BUSY = f"local.method={__file__}:Busy"


class Busy(LocalMethod):
    """Does not train while the file is there that ``BUSY`` names in its machine's environment.

    It takes a moment otherwise, so that a run without an end leaves the machine to others. It
    leaves a file beside it, whose name ends in ``.seen``, as soon as it waits.
    """

    def train(self, job):
        busy = Path(os.environ.get("BUSY", "none"))
        while busy.exists():
            busy.with_suffix(".seen").touch()
            time.sleep(0.1)
        time.sleep(0.1)
        return super().train(job)
