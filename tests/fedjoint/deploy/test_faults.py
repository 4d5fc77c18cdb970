"""Nodes of a deployment die, leave and are cut off, in real processes: one run goes on."""

import os
import signal
from contextlib import contextmanager

import pytest
from support.busy import BUSY
from support.machines import Site, Wire

from fedjoint._util import processes
from fedjoint.node.store import StateStore
from fedjoint.runs.directory import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("faults")]

SETTINGS = ["data.clients=6", "local.epochs=1", "evaluate.every=1000", "rounds=1000", BUSY]
CLIENTS = {"a": "0,1", "b": "2,3", "c": "4,5"}
ENDED = "ended (killed, as where memory runs out)"


class Fleet(Site):
    """A run that two nodes have joined, one of them over a wire."""

    def join(self, name):
        server = self.wire.address if name == "b" else self.address
        busy = {"BUSY": str(self.busy)} if name == "a" else {}
        self.node(name, CLIENTS[name], server=server, **busy)

    def __enter__(self):
        self.wire, self.busy = Wire(self.address), self.folder / "busy"
        self.server()
        self.join("a")
        self.join("b")
        self.deploy("deploy", "digits", *(word for s in SETTINGS for word in ("--set", s)))
        return self

    @contextmanager
    def held(self):
        """Have node a wait within a round, and yield the round before; it goes on in the end."""
        seen = self.busy.with_suffix(".seen")
        seen.unlink(missing_ok=True)
        self.busy.touch()
        self.until(seen.exists)
        try:
            yield self.last()
        finally:
            self.busy.unlink()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def site(fleet):
    """Return the run, in which nodes a and b train."""
    before = fleet.last() if fleet.records() else 0
    fleet.until(lambda: set(fleet.trained(0, after=before)) & set(fleet.trained(2, after=before)))
    return fleet


def test_a_killed_worker_costs_its_clients_a_round_and_another_one_starts(site):
    """The system kills it, as it does where memory runs out."""
    with site.held() as killed:
        _, worker = processes.tree(site.processes["a"].pid)
        os.kill(worker, signal.SIGKILL)
    site.until(lambda: any(ENDED in said for said in site.failures(0, after=killed)))
    assert ENDED in site.log("a")
    site.until(lambda: site.trained(0, after=killed + 1))


def test_the_last_reply_of_a_node_that_stops_counts(site):
    with site.held() as before:
        os.kill(site.processes["a"].pid, signal.SIGTERM)
    assert site.finish("a") == 0, site.log("a")
    site.until(lambda: site.last() > before)
    assert before + 1 in site.trained(0, after=before), site.failures(0, after=before)
    site.join("a")


def test_a_node_is_cut_off_and_comes_back(site):
    site.wire.cut()
    cut = site.last()
    lost = site.until(lambda: site.without(2, after=cut))[0]
    assert {0, 1} <= set(lost["clients"]["ids"]) <= {0, 1, 4, 5}
    assert {said.partition(":")[0] for said in site.failures(2, after=cut)} <= {"b"}
    site.wire.restore()
    restored = site.last()
    site.until(lambda: site.trained(2, after=restored + 1))


def test_nodes_die_return_and_come_late(site):
    # b dies in the middle of a round, and the others go on.
    site.kill("b")
    killed, told = site.last(), len(site.told())
    site.until(lambda: site.without(2, after=killed))
    # In whichever step of a round; and a round is in the log after its record.
    site.until(lambda: any("node b" in t and "is gone" in t for t in site.told()[told:]))
    assert {said.partition(":")[0] for said in site.failures(2, after=killed)} <= {"b"}
    store = StateStore(site.folder / "b" / f"{site.run.name}.sqlite", RunDir(site.run).id)
    # Both logits' biases raised alike change no prediction and no gradient, and leave a mark.
    counts = site.trained(2, after=0)[-1]
    head = store.read([2], [counts])[2]
    head["heads.loop.bias"] += 7.0
    store.write(counts, {2: head})

    # A node that nobody knew joins.
    site.join("c")
    site.until(lambda: site.trained(4, after=killed))

    # b returns, with its heads.
    site.join("b")
    site.until(lambda: site.trained(2, after=killed))
    counts = site.trained(2, after=killed)[-1]
    assert store.read([2], [counts])[2]["heads.loop.bias"].min() > 6.0

    # It is all in the log and in what status says.
    said = "\n".join(site.told())
    for name in "abc":
        assert f"node {name} (" in said
    site.start("status", "status", site.run)
    assert site.finish("status") == 0
    assert "rounds trained" in site.log("status") and "b " in site.log("status")
    assert "no news" not in site.log("status")
    trained = (site.folder / "a" / "log.jsonl").read_text("utf-8")
    assert '"event": "train"' in trained and '"round": 1,' in trained
