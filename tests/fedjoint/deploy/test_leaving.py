"""A node leaves in the middle of a round."""

import os
import signal

import pytest
from support.busy import BUSY
from support.machines import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SETTINGS = ["data.clients=2", "local.epochs=1", "evaluate.every=1000", "rounds=1000", BUSY]


def test_the_last_reply_of_a_node_that_stops_counts(tmp_path):
    busy = tmp_path / "busy"
    with Site(tmp_path) as site:
        site.server()
        site.node("a", "0", BUSY=str(busy))
        site.node("b", "1")
        site.deploy("deploy", "digits", *(word for s in SETTINGS for word in ("--set", s)))
        site.until(lambda: site.trained(0, after=0))
        busy.touch()
        site.until(busy.with_suffix(".seen").exists)
        held = site.last() + 1
        os.kill(site.processes["a"].pid, signal.SIGTERM)
        busy.unlink()
        assert site.finish("a") == 0, site.log("a")
        site.until(lambda: site.last() >= held)
        assert held in site.trained(0, after=0), site.failures(0, after=0)
