"""Nodes and the network break in a deployment of real processes."""

import json
import sys
from pathlib import Path

import pytest

from fedjoint.node.store import StateStore

sys.path.insert(0, str(Path(__file__).parent))
from machines import Site, Wire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Digits, but a client's data takes as long to read as its machine's environment says.
SLOW = """
import dataclasses, os, time
from fedjoint.problem import build_problem


def make(config):
    problem = build_problem(config.model_copy(update={"problem": None}))
    return dataclasses.replace(problem, data=SlowDisk(problem.data))


class SlowDisk:
    def __init__(self, data):
        self.data, self.task_names = data, data.task_names
        self.tasks, self.sizes = data.tasks, data.sizes

    def client(self, index):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return self.data.client(index)
"""


def test_nodes_die_return_come_late_are_slow_and_are_cut_off(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW, "utf-8")
    settings = [
        "data.clients=6",
        "local.epochs=1",
        "evaluate.every=1000",
        "rounds=1000",
        "output.checkpoint_every=1",
        "strategy.timeout=45",
        f"problem={tmp_path / 'slow.py'}:make",
    ]
    with Site(tmp_path) as site:
        site.server()
        wire = Wire(site.address)
        site.node("a", "0,1")
        site.node("b", "2,3", server=wire.address)
        site.deploy("deploy", "digits", *(word for s in settings for word in ("--set", s)))

        def trains(client, after):
            rounds = [r["round"] for r in site.records() if client in r["clients"]["ids"]]
            return [round for round in rounds if round > after]

        def last():
            return site.records()[-1]["round"]

        def without(client, after):
            """Return the rounds in which ``client`` did not train."""
            records = [r for r in site.records() if r["round"] > after]
            return [r for r in records if client not in r["clients"]["ids"]]

        def failures(client, after):
            lost = [f for r in without(client, after) for f in r["clients"]["failed"]]
            return [f"{f['name']}: {f['reason']}" for f in lost]

        def gone(name):
            """Say whether the log has it that ``name`` left, in whichever step of a round."""
            lines = (site.run / "log.jsonl").read_text("utf-8").splitlines()
            texts = [json.loads(line)["message"] for line in lines]
            signs = ("is gone", "the node is gone", "no reply within")
            return any(f"node {name}" in text and any(s in text for s in signs) for text in texts)

        # Everyone trains; then b dies in the middle of a round, and the others go on.
        site.until(lambda: trains(2, after=1))
        site.kill("b")
        killed = last()
        site.until(lambda: without(2, after=killed))
        assert gone("b")
        assert {said.partition(":")[0] for said in failures(2, after=killed)} <= {"b"}
        store = StateStore(tmp_path / "b" / f"{site.run.name}.sqlite")
        # Both logits' biases raised alike change no prediction and no gradient, and leave a mark.
        # In every round, as that in which b was killed may not count.
        for (round,) in store._db.execute("SELECT round FROM state WHERE client = 2").fetchall():
            head = store.read([2], [round])[2]
            head["heads.loop.bias"] += 7.0
            store.write(round, {2: head})

        # A node that nobody knew joins.
        site.node("c", "4,5")
        site.until(lambda: trains(4, after=killed))

        # b returns, with its heads.
        site.node("b", "2,3", server=wire.address)
        back = site.until(lambda: trains(2, after=killed))[0]
        assert store.read([2], [back])[2]["heads.loop.bias"].min() > 6.0

        # c becomes slower than a round may last.
        site.kill("c")
        site.node("c", "4,5", SLOW="600")
        began = last()
        site.until(lambda: any("c: no reply within" in s for s in failures(4, after=began)))
        assert trains(0, after=began)
        site.kill("c")

        # The network to b is cut, and restored.
        began = last()
        site.until(lambda: trains(2, after=began))
        wire.cut()
        cut = last()
        site.until(lambda: without(2, after=cut))
        wire.restore()
        restored = last()
        site.until(lambda: trains(2, after=restored + 1))

        # It is all in the log and in what status says.
        said = (site.run / "log.jsonl").read_text("utf-8")
        for name in "abc":
            assert f"node {name} (" in said
        site.start("status", "status", site.run)
        assert site.finish("status") == 0
        assert "rounds trained" in site.log("status") and "b " in site.log("status")
        assert "no news" not in site.log("status")
        trained = (tmp_path / "a" / "log.jsonl").read_text("utf-8")
        assert '"event": "train"' in trained and '"round": 1,' in trained
