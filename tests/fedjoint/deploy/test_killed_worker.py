"""The system kills a node's worker, as it does where memory runs out."""

import os
import signal

import pytest
from support.machines import Site

from fedjoint._util import processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Whoever finds the file that its machine's environment names takes it away, and never ends.
HELD = """
import os, signal
from fedjoint.training.method import LocalMethod


class Held(LocalMethod):
    def train(self, job):
        if os.path.exists(os.environ["HOLD"]):
            os.remove(os.environ["HOLD"])
            signal.pause()
        return super().train(job)
"""

ENDED = "ended (killed, as where memory runs out)"


def test_a_killed_worker_costs_its_clients_a_round_and_another_one_starts(tmp_path):
    (tmp_path / "held.py").write_text(HELD, "utf-8")
    hold = tmp_path / "hold"
    settings = [
        "data.clients=2",
        "local.epochs=1",
        "evaluate.every=1000",
        "rounds=1000",
        f"local.method={tmp_path / 'held.py'}:Held",
    ]
    with Site(tmp_path) as site:
        site.server()
        site.node("a", "0", HOLD=str(hold))
        site.node("b", "1", HOLD=str(tmp_path / "none"))
        site.deploy("deploy", "digits", *(word for s in settings for word in ("--set", s)))
        site.until(lambda: site.trained(0, after=0))
        hold.touch()
        site.until(lambda: not hold.exists())
        killed = site.last()
        _, worker = processes.tree(site.processes["a"].pid)
        os.kill(worker, signal.SIGKILL)
        site.until(lambda: any(ENDED in said for said in site.failures(0, after=killed)))
        assert ENDED in site.log("a")
        site.until(lambda: site.trained(0, after=killed + 1))
