"""The system kills a node's worker, as it does where memory runs out."""

import os
import signal

import pytest
from support.busy import BUSY
from support.machines import Site

from fedjoint._util import processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ENDED = "ended (killed, as where memory runs out)"


def test_a_killed_worker_costs_its_clients_a_round_and_another_one_starts(tmp_path):
    busy = tmp_path / "busy"
    settings = [
        "data.clients=2",
        "local.epochs=1",
        "evaluate.every=1000",
        "rounds=1000",
        BUSY,
    ]
    with Site(tmp_path) as site:
        site.server()
        site.node("a", "0", BUSY=str(busy))
        site.node("b", "1")
        site.deploy("deploy", "digits", *(word for s in settings for word in ("--set", s)))
        site.until(lambda: site.trained(0, after=0))
        busy.touch()
        site.until(busy.with_suffix(".seen").exists)
        killed = site.last()
        _, worker = processes.tree(site.processes["a"].pid)
        os.kill(worker, signal.SIGKILL)
        busy.unlink()
        site.until(lambda: any(ENDED in said for said in site.failures(0, after=killed)))
        assert ENDED in site.log("a")
        site.until(lambda: site.trained(0, after=killed + 1))
