"""A node leaves in the middle of a round."""

import os
import signal

import pytest
from support.busy import wait_within_a_round
from support.machines import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_last_reply_of_a_node_that_stops_counts(tmp_path):
    with Site(tmp_path) as site:
        busy = wait_within_a_round(site)
        held = site.last() + 1
        os.kill(site.processes["a"].pid, signal.SIGTERM)
        busy.unlink()
        assert site.finish("a") == 0, site.log("a")
        site.until(lambda: site.last() >= held)
        assert held in site.trained(0, after=0), site.failures(0, after=0)
