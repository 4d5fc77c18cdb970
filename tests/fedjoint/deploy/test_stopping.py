"""Servers, nodes and runs stop in order, and leave no process behind."""

import os
import signal
from pathlib import Path

import pytest
from support.busy import BUSY
from support.machines import Site

from fedjoint._util import processes
from fedjoint.runs.directory import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SETTINGS = [
    "data.clients=4",
    "local.epochs=1",
    "evaluate.every=1000",
    "rounds=1000",
    "engine.min_nodes=2",
    "output.checkpoint_every=1000",
    BUSY,
]


def started(site):
    site.server()
    site.node("a", "0,1")
    site.node("b", "2,3")
    site.deploy("deploy", "digits", *(word for s in SETTINGS for word in ("--set", s)))
    site.until(lambda: len(site.records()) > 1)


def command(process):
    return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def family(site, *names):
    """Return the processes of some programs and all that they started: number -> command."""
    found = [p for name in names for p in processes.tree(site.processes[name].pid)]
    return {process: command(process) for process in found}


def left(before):
    """Return those of ``before`` that are still there, zombies included."""
    return {
        process: said
        for process, said in before.items()
        if Path(f"/proc/{process}").exists() and command(process) in (said, "")
    }


def test_a_run_and_its_server_stop_in_order_and_go_on(tmp_path):
    with Site(tmp_path) as site:
        started(site)
        site.start("stop", "stop", site.run)
        assert site.finish("stop") == 0, site.log("stop")
        assert site.finish("deploy") == 0, site.log("deploy")
        run = RunDir(site.run)
        ended = site.last()
        assert (run.status, run.final().round, run.latest().round) == ("stopped", ended, ended)
        site.start("status", "status", site.run)
        assert site.finish("status") == 0 and "stopped" in site.log("status")

        site.deploy("again", "--resume", site.run)
        site.until(lambda: site.last() > ended)
        assert f"resume: round {ended + 1} is next" in site.told()
        before = family(site, "server")
        assert len(before) == 2, before  # the SuperLink and the run
        site.start("other", "server", "--address", site.address)
        assert site.finish("other") == 2
        assert f"process {site.processes['server'].pid} (" in site.log("other")

        os.kill(site.processes["server"].pid, signal.SIGTERM)
        assert site.finish("server") == 0, site.log("server")
        site.finish("again")
        assert not left(before) and run.status == "stopped"
        assert run.final().round == run.latest().round == site.last() > ended

        for name in "ab":
            before = family(site, name)
            assert len(before) == 2, before  # the node and its worker
            os.kill(site.processes[name].pid, signal.SIGTERM)
            assert site.finish(name) == 0, site.log(name)
            assert not left(before)
