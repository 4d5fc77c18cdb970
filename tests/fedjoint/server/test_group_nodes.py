"""Nodes that host clients of some of the groups alone."""

import logging

import pytest
import torch
from support.fleet import Fleet, answering
from support.grouped import COMMON, config, stemmed

from fedjoint import UserError, simulate
from fedjoint.node.node import Node
from fedjoint.runs.directory import RunDir
from fedjoint.server.serve import serve


class Watched(Fleet):
    """Nodes, the last of which may be late; notes what each was sent of the backbone."""

    def __init__(self, nodes, late=0):
        super().__init__({number: answering(node) for number, node in nodes.items()})
        self.late, self.sent = late, {}

    def get_node_ids(self):
        here = super().get_node_ids()
        if self.late:
            self.late -= 1
            here.pop()
        return here

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        for message in messages:
            node, arrays = message.metadata.dst_node_id, message.content.array_records
            names = list(arrays["backbone"]) if "backbone" in arrays else []
            shapes = {name: arrays["backbone"][name].numpy().shape for name in names}
            self.sent.setdefault(node, []).append(shapes)
        return super().send_and_receive(messages, timeout=timeout)


#: as a simulation weighs and measures clients
ALIKE = {
    "strategy": {"max_share": 1.0, "max_node_share": 1.0, "clip": 0.0},
    "evaluate": {"min_examples": 1},
}


def fleet(settings, homes, **more):
    """Return nodes, each with the clients of one entry of ``homes``."""
    problem = stemmed()
    return Watched(
        {
            place + 1: Node(problem, settings, None, {c: c for c in clients}, name=f"node{place}")
            for place, clients in enumerate(homes)
        },
        **more,
    )


def deployed(tmp_path, homes, least=None, **more):
    engine = {"name": "inline", "min_nodes": least or len(homes)}
    settings = config(tmp_path, model={"common": COMMON}, engine=engine, **ALIKE)
    nodes = fleet(settings, homes, **more)
    run = RunDir.create(tmp_path, "run", settings)
    return nodes, run, lambda: serve(nodes, settings, run, deployed=True, wait=30.0)


@pytest.mark.parametrize("homes", [[[1, 3, 4], [0, 2]], [[0, 1], [2, 3, 4]], [[0, 1, 2, 3, 4]]])
def test_wherever_clients_live_the_run_is_the_same(tmp_path, homes):
    expected = simulate(config(tmp_path, model={"common": COMMON}, **ALIKE), stemmed())
    _, run, go = deployed(tmp_path, homes)
    found = go()
    assert found.keys() == expected.backbone.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.backbone.items())
    for split, metrics in expected.records[-1].evaluation.items():  # summed in another order
        assert run.records()[-1].evaluation[split] == pytest.approx(metrics)


def test_a_node_is_sent_no_other_group_s_stem(tmp_path):
    nodes, _, go = deployed(tmp_path, [[1, 3, 4], [0, 2]])
    go()
    for node, width in ((1, 3), (2, 5)):
        stems = {shapes.get("backbone.stem.weight") for shapes in nodes.sent[node] if shapes}
        assert stems == {(4, width)}


def test_a_group_that_comes_before_the_first_round_takes_part(tmp_path):
    _, run, go = deployed(tmp_path, [[1, 3, 4], [0, 2]], late=1)
    assert "groups.wide.backbone.stem.weight" in go()
    assert run.records()[-1].clients.ids == (0, 1, 2, 3, 4)


def test_a_group_that_comes_later_is_refused_by_name(tmp_path, caplog):
    with caplog.at_level(logging.ERROR):
        _, run, go = deployed(tmp_path, [[1, 3, 4], [0, 2]], least=1, late=1)
        assert "groups.wide.backbone.stem.weight" not in go()
    assert "its clients are of group 'wide', of which nobody was here" in caplog.text
    assert run.records()[-1].clients.ids == (1, 3, 4)


def test_nodes_that_have_other_trunks_end_the_run_before_its_first_round(tmp_path):
    settings = config(tmp_path, model={"common": ["backbone.*"]})
    plain = config(tmp_path, engine={"name": "inline", "min_nodes": 2})
    nodes = fleet(plain, [[1, 3, 4], [0, 2]])
    run = RunDir.create(tmp_path, "run", settings)
    with pytest.raises(UserError, match=r"'backbone\.stem\.weight' is"):
        serve(nodes, settings, run, deployed=True)
    assert not run.records()
