"""A node of a deployment is slower than a round may last."""

import subprocess
import sys
import time

import pytest
from support.busy import BUSY
from support.machines import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LATE = "within strategy.timeout"


def enough():
    """Return seconds in which a node answers, as busy as this machine is now."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return 10.0 + 5.0 * (time.monotonic() - began)


def test_a_slow_node_is_left_out_until_it_is_quick_again(tmp_path):
    busy = tmp_path / "busy"
    settings = [
        "data.clients=4",
        "local.epochs=1",
        "evaluate.every=1000",
        "rounds=1000",
        BUSY,
        f"strategy.timeout={enough():.1f}",
    ]
    with Site(tmp_path) as site:
        site.server()
        site.node("a", "0,1")
        site.node("b", "2,3", BUSY=str(busy))
        site.until(lambda: all("as node" in site.log(name) for name in "ab"))
        site.deploy("deploy", "digits", *(word for s in settings for word in ("--set", s)))
        site.until(lambda: site.trained(2, after=0))
        busy.touch()
        began = site.last()
        site.until(lambda: any(LATE in s for s in site.failures(2, after=began)))
        site.until(lambda: site.trained(0, after=began))
        busy.unlink()
        quick = site.last()
        site.until(lambda: site.trained(2, after=quick + 1))
