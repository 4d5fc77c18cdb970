"""Nodes of a deployment die, return and come late, in real processes."""

import pytest
from support.machines import Site

from fedjoint.node.store import StateStore
from fedjoint.runs.directory import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SETTINGS = [
    "data.clients=6",
    "local.epochs=1",
    "evaluate.every=1000",
    "rounds=1000",
]


def test_nodes_die_return_and_come_late(tmp_path):
    with Site(tmp_path) as site:
        site.server()
        site.node("a", "0,1")
        site.node("b", "2,3")
        site.deploy("deploy", "digits", *(word for s in SETTINGS for word in ("--set", s)))

        def gone(name):
            """Say whether the log has it that ``name`` left, in whichever step of a round."""
            signs = ("is gone", "the node is gone")
            return any(
                f"node {name}" in text and any(sign in text for sign in signs)
                for text in site.told()
            )

        # Everyone trains; then b dies in the middle of a round, and the others go on.
        site.until(lambda: site.trained(2, after=1))
        site.kill("b")
        killed = site.last()
        site.until(lambda: site.without(2, after=killed))
        site.until(lambda: gone("b"))  # a round is in the log after its record
        assert {said.partition(":")[0] for said in site.failures(2, after=killed)} <= {"b"}
        store = StateStore(tmp_path / "b" / f"{site.run.name}.sqlite", RunDir(site.run).id)
        # Both logits' biases raised alike change no prediction and no gradient, and leave a mark.
        counts = site.trained(2, after=0)[-1]
        head = store.read([2], [counts])[2]
        head["heads.loop.bias"] += 7.0
        store.write(counts, {2: head})

        # A node that nobody knew joins.
        site.node("c", "4,5")
        site.until(lambda: site.trained(4, after=killed))

        # b returns, with its heads.
        site.node("b", "2,3")
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
        trained = (tmp_path / "a" / "log.jsonl").read_text("utf-8")
        assert '"event": "train"' in trained and '"round": 1,' in trained
