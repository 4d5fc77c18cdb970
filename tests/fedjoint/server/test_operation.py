"""A deployed run that is stopped goes on to the same end; one whose nodes are away waits."""

import json

import pytest
import torch
from support import fleet
from support.fleet import Fleet, answering, gone

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.node.node import Node
from fedjoint.node.store import StateStore
from fedjoint.protocol import wire
from fedjoint.protocol.requests import EVALUATE, PERSIST, QUERY, TRAIN, Header
from fedjoint.runs.directory import RunDir
from fedjoint.server import patience
from fedjoint.server.serve import serve
from fedjoint.server.stopping import StoppedError

SETTINGS = fleet.SETTINGS | {
    "rounds": 4,
    "strategy": {"name": "fedavgm"},  # which has a state of its own
    "output": {"checkpoint_every": 1000},
}
NODES = {5: [0, 1], 9: [2, 3]}


class Deployment:
    """A run and the stores of its nodes."""

    def __init__(self, folder):
        folder.mkdir()
        self.run = RunDir.create(folder, "run", check(SETTINGS))
        self.paths = [folder / f"{node}.sqlite" for node in NODES]

    def serve(self, meddle=lambda message: None, **options):
        """Serve it; ``meddle`` may return replies in the place of a node's, or raise."""
        nodes = {node: self._node(node, path) for node, path in zip(NODES, self.paths, strict=True)}
        answers = {
            n: lambda m, answer=answer: meddle(m) or answer(m) for n, answer in nodes.items()
        }
        config = self.run.config()
        return serve(Fleet(answers), config, self.run, wait=60.0, deployed=True, **options)

    def _node(self, number, path):
        store, places = StateStore(path, self.run.id), {client: client for client in NODES[number]}
        name = f"node {number}"
        return answering(Node(fleet.problem(), check(SETTINGS), store, places, True, name))

    def told(self):
        return [record.round for record in self.run.records()]


def asked(message, kind, round):
    return message.metadata.message_type == kind and wire.read(Header, message).round == round


@pytest.fixture
def whole(tmp_path):
    return Deployment(tmp_path / "whole").serve()


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_run_that_is_stopped_ends_in_order_and_goes_on_to_the_same_bits(tmp_path, whole):
    def stop(message):
        if asked(message, TRAIN, 3) and message.metadata.dst_node_id == 9:
            raise StoppedError  # one node has trained round 3 already

    stopped = Deployment(tmp_path / "stopped")
    backbone = stopped.serve(stop)
    run = stopped.run
    assert (run.status, stopped.told(), run.latest().round) == ("stopped", [1, 2], 2)
    same(run.final().backbone, {name: backbone[name] for name in run.final().backbone})
    assert (run.path / "metrics.csv").exists()
    same(stopped.serve(), whole)
    assert (run.status, stopped.told()) == ("done", [1, 2, 3, 4])


def test_a_stop_in_a_later_phase_of_a_round_waits_for_its_end(tmp_path, whole):
    stopped = Deployment(tmp_path / "stopped")
    stopped.serve(stopping=lambda: len(stopped.run.records()) == 2)
    assert (stopped.run.status, stopped.told()) == ("stopped", [1, 2])
    same(stopped.serve(), whole)


@pytest.mark.parametrize(("kind", "round"), [(QUERY, 0), (TRAIN, 1)])
def test_a_run_that_is_stopped_before_a_round_is_done_says_so(tmp_path, kind, round, whole):
    def stop(message):
        if asked(message, kind, round):
            raise StoppedError

    stopped = Deployment(tmp_path / "stopped")
    with pytest.raises(UserError, match=r"the run was stopped .* first round.*; resume it"):
        stopped.serve(stop)
    assert stopped.run.status == "failed"
    same(stopped.serve(), whole)


def test_a_round_in_which_everybody_is_away_is_waited_for(tmp_path, whole, monkeypatch, caplog):
    monkeypatch.setattr(patience, "_AGAIN", 0.0)
    left = {5: 3, 9: 3}

    def away(message):
        node = message.metadata.dst_node_id
        if asked(message, TRAIN, 2) and left[node]:
            left[node] -= 1
            return gone(message)
        return None

    caplog.set_level("INFO", "fedjoint")
    waiting = Deployment(tmp_path / "waiting")
    same(waiting.serve(away), whole)
    assert left == {5: 0, 9: 0}
    assert [record.clients.trained for record in waiting.run.records()] == [4] * 4
    said = [text for text in caplog.messages if "every node is away; the round waits" in text]
    assert len(said) == 1


def test_a_round_in_which_one_is_away_is_not_waited_for(tmp_path):
    waiting = Deployment(tmp_path / "waiting")
    waiting.serve(lambda m: gone(m) if asked(m, TRAIN, 2) and m.metadata.dst_node_id == 5 else None)
    assert [record.clients.trained for record in waiting.run.records()] == [4, 2, 4, 4]


def test_the_first_round_has_a_checkpoint(tmp_path):
    def killed(message):
        if asked(message, TRAIN, 3):
            raise KeyboardInterrupt

    killed_run = Deployment(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        killed_run.serve(killed)
    assert killed_run.run.latest().round == 1


def limits(run, kind, **options):
    """Return the seconds that nodes had for requests of a kind, of each round."""
    had = {}

    def note(message):
        if message.metadata.message_type == kind:
            header = wire.read(Header, message)
            had.setdefault(header.round, set()).add(header.timeout)

    run.serve(note, **options)
    return had


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_nodes_have_as_long_as_was_measured_and_at_first_an_hour(tmp_path, kind):
    had = limits(Deployment(tmp_path / "run"), kind)
    # The last evaluation has training examples beside, which none was measured with.
    last = 60.0 if kind == TRAIN else 3600.0
    assert had == {1: {3600.0}, 2: {60.0}, 3: {60.0}, 4: {last}}


def test_a_resumed_run_measures_anew_and_a_number_pins_it(tmp_path):
    first = Deployment(tmp_path / "first")
    limits(first, TRAIN, stopping=lambda: len(first.run.records()) == 2)
    assert limits(first, TRAIN) == {3: {3600.0}, 4: {60.0}}
    pinned = Deployment(tmp_path / "pinned")
    pinned.run.change({"strategy.timeout": 90.0})
    assert limits(pinned, TRAIN) == {round: {90.0} for round in range(1, 5)}
    other = Deployment(tmp_path / "other")
    other.run.change({"strategy.timeout": 90.0})
    assert set.union(*limits(other, PERSIST).values()) == {90.0}


def test_settings_of_operation_may_change_and_others_not(tmp_path):
    run = Deployment(tmp_path / "run").run
    run.change({"engine.min_nodes": 2, "strategy.timeout": 60.0, "rounds": 6})
    config = run.config()
    assert (config.engine.min_nodes, config.strategy.timeout, config.rounds) == (2, 60.0, 6)
    before = (run.path / "config.json").read_bytes()
    with pytest.raises(UserError, match="min_nodes"):
        run.change({"engine.min_nodes": 0})
    assert (run.path / "config.json").read_bytes() == before
    assert json.loads(before)["engine"]["min_nodes"] == 2
