"""A round that is not merged leaves no trace in what clients keep to themselves."""

from pathlib import Path

import pytest
import torch
from flwr.app import Message
from support.messages import settings

from fedjoint.config.load import check
from fedjoint.engines.local import LocalGrid
from fedjoint.flower.compat import number
from fedjoint.node.node import Node
from fedjoint.protocol.requests import TRAIN
from fedjoint.registry import load_object
from fedjoint.runs.directory import RunDir
from fedjoint.server.serve import serve
from fedjoint.simulation import resume, simulate

HERE = Path(__file__).parent / "quadratics.py"
CLIENTS, STRATEGIES, make, optimum = (
    load_object(f"{HERE}:{name}") for name in ("CLIENTS", "STRATEGIES", "make", "optimum")
)
RULES = ["Scaffold", "FedDyn"]


def configure(folder, strategy, engine="inline", rounds=40, **more):
    options = {"alpha": 0.5} if "feddyn" in strategy.lower() else {}
    return check(
        {
            "rounds": rounds,
            "problem": f"{HERE}:make",
            "local": {"steps": 5, "optimiser": {"lr": 0.2}},
            "strategy": {"name": strategy, "options": options, **more},
            "evaluate": {"every": rounds},
            "engine": {"name": engine, "workers": 2},
            "output": {"dir": str(folder), "checkpoint_every": 1},
        }
    )


@pytest.fixture
def refusing(tmp_path):
    path = tmp_path / "refusing.py"
    path.write_text(STRATEGIES)
    return lambda rule: f"{path}:Refusing{rule}"


def distance(backbone):
    return float((backbone["backbone.w"] - optimum()).norm())


def kept(records):
    return [record.round for record in records if record.kept]


@pytest.mark.parametrize("rule", RULES)
def test_a_refused_merge(tmp_path, refusing, rule):
    # All 39 rounds of the one are rounds 1 to 19 and 21 to 40 of the other.
    plain = simulate(configure(tmp_path, rule.lower(), rounds=39))
    result = simulate(configure(tmp_path, refusing(rule)))
    assert kept(result.records) == [20] and not kept(plain.records)
    assert distance(plain.backbone) < 1e-4
    assert torch.equal(result.backbone["backbone.w"], plain.backbone["backbone.w"])


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize(("rule", "engine"), [*((r, "ray") for r in RULES), ("Scaffold", "flower")])
def test_a_refused_merge_in_other_engines(tmp_path, refusing, two_workers, rule, engine):
    inline = simulate(configure(tmp_path, refusing(rule), rounds=22))
    result = simulate(configure(tmp_path, refusing(rule), engine, rounds=22))
    assert kept(result.records) == [20]
    assert torch.equal(result.backbone["backbone.w"], inline.backbone["backbone.w"])


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_a_refused_merge_and_a_resume(tmp_path, refusing, rule):
    """The server dies as a round ends, before its checkpoint; another process goes on."""

    class Stop(Exception):
        pass

    whole = simulate(configure(tmp_path / "whole", refusing(rule), rounds=24))
    for last in (19, 20, 21):

        def stop(record, last=last):
            if record.round == last:
                raise Stop

        cut = configure(tmp_path / f"cut-{last}", refusing(rule), rounds=24)
        with pytest.raises(Stop):
            simulate(cut, callbacks=[stop])
        (folder,) = (tmp_path / f"cut-{last}").iterdir()
        result = resume(folder)
        assert torch.equal(result.backbone["backbone.w"], whole.backbone["backbone.w"]), last


class Halves(LocalGrid):
    """Two nodes with half of the clients each; in some rounds, replies of the second are lost."""

    def __init__(self, config, lost):
        super().__init__()
        half = CLIENTS // 2
        ids = {1: range(half), 2: range(half, CLIENTS)}
        self.nodes = {
            n: Node(make(config), config, None, {c: c for c in own}, name=str(n))
            for n, own in ids.items()
        }
        self.lost = lost

    def get_node_ids(self):
        return list(self.nodes)

    def send_and_receive(self, messages, *, timeout=None):
        for message in number(messages):
            node = message.metadata.dst_node_id
            reply = Message(self.nodes[node].handle(message), reply_to=message)
            training = message.metadata.message_type == TRAIN
            if not (training and node == 2 and settings(message)["round"] in self.lost):
                yield reply


def served(folder, strategy, lost, **more):
    config = configure(folder, strategy, **more)
    run = RunDir.create(folder, "halves", config)
    backbone = serve(Halves(config, lost), config, run)
    return backbone, run.records()


@pytest.mark.parametrize("rule", RULES)
def test_too_few_clients(tmp_path, rule):
    backbone, records = served(tmp_path, rule.lower(), {20}, min_clients=CLIENTS)
    assert kept(records) == [20]
    assert distance(backbone) < 1e-4


@pytest.mark.parametrize("rule", RULES)
def test_lost_replies(tmp_path, rule):
    """The other half is merged: clients' state and the server's stay what they are to be."""
    backbone, records = served(tmp_path, rule.lower(), {20, 21, 33})
    trained = [record.clients.trained for record in records]
    assert not kept(records) and trained[18:22] == [10, 5, 5, 10]
    assert distance(backbone) < 1e-4


def test_heads_of_a_round_that_was_not_merged_are_those_of_before(tmp_path, refusing):
    """Nothing that a client keeps moves in a refused round, whatever the method."""
    result = simulate(configure(tmp_path, refusing("Scaffold"), rounds=20))
    before = simulate(configure(tmp_path, "scaffold", rounds=19))
    for client, state in before.heads().items():
        for name, tensor in state.items():
            assert torch.equal(result.heads()[client][name], tensor), (client, name)
