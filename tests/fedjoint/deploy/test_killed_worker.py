"""The system kills a node's worker, as it does where memory runs out."""

import os
import signal

import pytest
from support.busy import wait_within_a_round
from support.machines import Site

from fedjoint._util import processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ENDED = "ended (killed, as where memory runs out)"


def test_a_killed_worker_costs_its_clients_a_round_and_another_one_starts(tmp_path):
    with Site(tmp_path) as site:
        busy = wait_within_a_round(site)
        killed = site.last()
        _, worker = processes.tree(site.processes["a"].pid)
        os.kill(worker, signal.SIGKILL)
        busy.unlink()
        site.until(lambda: any(ENDED in said for said in site.failures(0, after=killed)))
        assert ENDED in site.log("a")
        site.until(lambda: site.trained(0, after=killed + 1))
